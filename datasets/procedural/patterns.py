"""Patterns that surfaces wear, as functions of the place on the surface.

Every pattern is a pair (blend, accent): the colour is ``mix(mix(first, second, blend), third,
accent)``. Edges are as soft as the pixel's footprint is wide, and patterns finer than a pixel
fade to their mean, so that nothing flickers that a camera would not show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.noise import hashed, whole

Ray = Float[Tensor, "scene ray"]
Layers = tuple[Ray, Ray]


@dataclass(frozen=True)
class Spot:
    """The place on a surface whose colour is asked for."""

    solid: Float[Tensor, "scene ray 3"]
    """In the surface's own frame, world units."""
    u: Ray
    """Across the surface, in periods of the pattern."""
    v: Ray
    height: Ray
    """Along the frame's z axis, in periods of the pattern."""
    footprint: Ray
    """Width of a pixel, in periods of the pattern."""
    cloud: Ray
    """Multi-octave noise in about [-1, 1]."""
    seed: Int[Tensor, "scene ray"]
    aspect: Ray
    detail: Ray


def _step(edge: Ray | float, values: Ray, width: Ray) -> Ray:
    """Rise from 0 to 1 over a pixel's width around an edge."""
    return ((values - edge) / width.clamp_min(1e-3) + 0.5).clamp(0, 1)


def _bar(position: Ray, half_width: Ray | float, width: Ray) -> Ray:
    """Be 1 within half a width of the middle of every period."""
    return 1 - _step(half_width, (position - position.floor() - 0.5).abs(), width)


def _faded(values: Ray, mean: Ray | float, footprint: Ray) -> Ray:
    kept = (1.7 - 1.7 * footprint).clamp(0, 1)
    return mean + kept * (values - mean)


def plain(spot: Spot) -> Layers:
    """Show the first colour only."""
    zero = torch.zeros_like(spot.u)
    return zero, zero


def _marble(spot: Spot) -> Layers:
    blend = _step(0.0, spot.cloud, 0.6 + 0 * spot.u)
    return blend, (spot.cloud * 2 - 0.7).clamp(0, 1)


def _wood(spot: Spot) -> Layers:
    radius = (spot.u**2 * 0.02 + (spot.v + 0.7) ** 2).sqrt()
    rings = radius + spot.detail * spot.cloud
    wave = 0.5 + 0.5 * (2 * math.pi * rings).sin()
    fibre = hashed(whole(spot.v * 9), whole(spot.u * 0.4), spot.seed)
    return _faded(wave * wave, 0.4, spot.footprint), _faded(0.25 * fibre, 0.1, 9 * spot.footprint)


def _courses(spot: Spot) -> tuple[Ray, Ray, Ray]:
    """Return coordinates in rows that are shifted against each other, and each cell's own hash."""
    row = whole(spot.v)
    u = spot.u / spot.aspect + 0.5 * (row % 2).float() * (spot.aspect > 1.05)
    return u, spot.v, hashed(whole(u), row, spot.seed)


def _brick(spot: Spot) -> Layers:
    u, v, own = _courses(spot)
    joint_u = 1 - _bar(u, 0.5 - spot.detail / spot.aspect, spot.footprint / spot.aspect)
    joint_v = 1 - _bar(v, 0.5 - spot.detail, spot.footprint)
    joint = torch.maximum(joint_u, joint_v)
    return _faded(joint, 3 * spot.detail, spot.footprint), own * (1 - joint)


def _planks(spot: Spot) -> Layers:
    u, v, own = _courses(spot)
    grain = 0.5 + 0.5 * (20 * (v - v.floor()) + 30 * own + 4 * spot.detail * spot.cloud).sin()
    joint = torch.maximum(
        1 - _bar(u, 0.492, spot.footprint / spot.aspect), 1 - _bar(v, 0.485, spot.footprint)
    )
    blend = (0.6 * own + 0.4 * _faded(grain, 0.5, 3 * spot.footprint)).clamp(0, 1)
    return blend, _faded(joint, 0.03, spot.footprint)


def _checker(spot: Spot) -> Layers:
    first = _bar(spot.u / spot.aspect, 0.25, spot.footprint)
    second = _bar(spot.v, 0.25, spot.footprint)
    return _faded(first + second - 2 * first * second, 0.5, spot.footprint), 0 * spot.u


def _stripes(spot: Spot) -> Layers:
    blend = _bar(spot.u, spot.detail, spot.footprint)
    thin = _bar(spot.u + 0.31, 0.04, spot.footprint)
    return _faded(blend, 2 * spot.detail, spot.footprint), _faded(thin, 0.08, spot.footprint)


def _cloth(spot: Spot) -> Layers:
    threads = 0.5 + 0.25 * ((25 * spot.u).sin() + (25 * spot.v).sin())
    bands = 0.5 * _bar(spot.u, spot.detail, spot.footprint)
    bands = bands + 0.5 * _bar(spot.v, spot.detail, spot.footprint)
    return _faded(bands, spot.detail, spot.footprint), _faded(
        0.35 * threads, 0.17, 4 * spot.footprint
    )


def _glyphs(spot: Spot) -> Layers:
    """Lines of words of letters: each letter is 4 by 6 random blocks in a cell of 5 by 9."""
    line = spot.v * 3
    place = spot.u * 5
    row, column = whole(line), whole(place)
    length = 3 + hashed(row, row * 0, spot.seed) * 30
    written = hashed(column, row, spot.seed + 5) < 0.82
    written = written & (column.remainder(40).float() < length)
    x, y = whole((place - place.floor()) * 5), whole((line - line.floor()) * 9)
    block = hashed(column * 5 + x, row * 9 + y, spot.seed + 9) < 0.58
    ink = (written & block & (x < 4) & (y > 0) & (y < 7)).float()
    mean = 0.3 * written.float()
    heading = hashed(whole(spot.v * 0.6), whole(spot.u * 0.25), spot.seed + 3) < 0.15
    return _faded(ink, mean, 12 * spot.footprint), 0.8 * heading.float()


def _cells(spot: Spot) -> Layers:
    """Pebbles or cracks: the two nearest of one random point per lattice cell (Worley, 1996)."""
    column, row = whole(spot.u), whole(spot.v)
    nearest = second = torch.full_like(spot.u, 9.0)
    own = torch.zeros_like(spot.u)
    for shift in range(9):
        i, j = column + (shift % 3 - 1), row + (shift // 3 - 1)
        x = i.float() + hashed(i, j, spot.seed) - spot.u
        y = j.float() + hashed(i, j, spot.seed + 17) - spot.v
        gap = x * x + y * y
        closer = gap < nearest
        second = torch.where(closer, nearest, torch.minimum(second, gap))
        own = torch.where(closer, hashed(i, j, spot.seed + 29), own)
        nearest = torch.where(closer, gap, nearest)
    crack = 1 - _step(0.06, second.sqrt() - nearest.sqrt(), 0.08 + spot.footprint)
    return _faded(crack, 0.2, spot.footprint), _faded(own * (1 - crack), 0.4, spot.footprint)


def _speckle(spot: Spot) -> Layers:
    fine = hashed(whole(spot.u * 8), whole(spot.v * 8), spot.seed)
    coarse = hashed(whole(spot.u * 3), whole(spot.v * 3), spot.seed + 7)
    share = spot.detail
    return (
        _faded((fine < share).float(), share, 8 * spot.footprint),
        _faded((coarse < 0.5 * share).float(), 0.5 * share, 3 * spot.footprint),
    )


def _gradient(spot: Spot) -> Layers:
    wave = 0.5 + 0.5 * (spot.height + 0.3 * spot.cloud).sin()
    return wave, 0 * spot.u


def _dots(spot: Spot) -> Layers:
    x, y = spot.u - spot.u.floor() - 0.5, spot.v - spot.v.floor() - 0.5
    inside = 1 - _step(0.55 * spot.detail + 0.1, (x * x + y * y).sqrt(), spot.footprint)
    other = hashed(whole(spot.u), whole(spot.v), spot.seed) < 0.3
    mean = spot.detail**2
    return _faded(inside, mean, spot.footprint), _faded(inside * other, 0.3 * mean, spot.footprint)


def _collage(spot: Spot) -> Layers:
    """Packaging and posters: blocks within blocks, and circles, at three scales."""
    blend, accent = torch.zeros_like(spot.u), torch.zeros_like(spot.u)
    for level, scale in enumerate((0.35, 0.9, 2.6)):
        u, v = spot.u * scale, spot.v * scale / spot.aspect
        column, row = whole(u), whole(v)
        own = hashed(column, row, spot.seed + 11 * level)
        x, y = u - u.floor() - 0.5, v - v.floor() - 0.5
        round_one = hashed(column, row, spot.seed + 3 + level) < 0.3
        gap = torch.where(round_one, (x * x + y * y).sqrt(), torch.maximum(x.abs(), y.abs()))
        inside = 1 - _step(0.25 + 0.25 * own, gap, scale * spot.footprint)
        inside = _faded(inside, 0.4, scale * spot.footprint)
        blend = torch.where(own < 0.45, blend * (1 - inside) + inside * (own * 2), blend)
        accent = torch.where(own > 0.7, accent * (1 - inside) + inside * own, accent)
    return blend.clamp(0, 1), accent.clamp(0, 1)


def _windows(spot: Spot) -> Layers:
    """Rows of windows with frames, on a wall."""
    u, v = spot.u / spot.aspect, spot.v
    wide, high = u - u.floor() - 0.5, v - v.floor() - 0.5
    width = spot.footprint
    opening = (1 - _step(0.24, wide.abs(), width)) * (1 - _step(0.34, high.abs(), width))
    frame = (1 - _step(0.29, wide.abs(), width)) * (1 - _step(0.39, high.abs(), width))
    bars = torch.maximum(_bar(2 * u, 0.06, 2 * width), _bar(3 * v, 0.05, 3 * width))
    glass = opening * (1 - bars)
    return _faded(glass, 0.25, width), _faded(frame - glass, 0.15, width).clamp(0, 1)


def _grass(spot: Spot) -> Layers:
    """Blades and fur: noise that is drawn out, in two scales."""
    long = hashed(whole(spot.u * 14 + 2 * spot.cloud), whole(spot.v * 3), spot.seed)
    fine = hashed(whole(spot.u * 31), whole(spot.v * 7 + spot.cloud), spot.seed + 1)
    blend = _faded(long, 0.5, 9 * spot.footprint)
    return 0.6 * blend + 0.2 * (spot.cloud + 1), 0.6 * _faded(fine, 0.5, 16 * spot.footprint)


def _floral(spot: Spot) -> Layers:
    """Flowers scattered over cloth or paper: petals around a point, with leaves."""
    column, row = whole(spot.u), whole(spot.v)
    own = hashed(column, row, spot.seed)
    other = hashed(column, row, spot.seed + 13)
    x = spot.u - spot.u.floor() - 0.3 - 0.4 * own
    y = spot.v - spot.v.floor() - 0.3 - 0.4 * other
    radius, angle = (x * x + y * y).sqrt(), torch.atan2(y, x)
    petals = 0.16 + 0.1 * own + 0.05 * (angle * (3 + 2 * (own > 0.5)) + 9 * own).cos()
    flower = 1 - _step(petals, radius + 0.05 * spot.cloud, spot.footprint)
    rings = 0.5 + 0.5 * (40 * radius + 5 * angle.cos() + 4 * spot.cloud).sin()
    leaves = 1 - _step(0.4 * (2 * angle + 6 * other).sin().abs() ** 4, radius, spot.footprint)
    shown = (other < 0.85).float()
    blend = _faded(flower * (0.5 + 0.5 * rings) * shown, 0.15, spot.footprint)
    return blend, _faded(leaves * (1 - flower) * shown, 0.1, spot.footprint)


PATTERN_CODE: dict[str, Callable[[Spot], Layers]] = {
    "plain": plain,
    "marble": _marble,
    "wood": _wood,
    "brick": _brick,
    "checker": _checker,
    "stripes": _stripes,
    "cloth": _cloth,
    "glyphs": _glyphs,
    "cells": _cells,
    "speckle": _speckle,
    "gradient": _gradient,
    "planks": _planks,
    "dots": _dots,
    "collage": _collage,
    "windows": _windows,
    "grass": _grass,
    "floral": _floral,
    "photo": _collage,
}
