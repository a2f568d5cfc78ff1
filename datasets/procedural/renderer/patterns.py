"""Noise and surface patterns as functions of texture coordinates.

Noise hashes lattice points in wrapping 32-bit integers, with equal results on every device. A
pattern is a pair (blend, accent): the colour is ``mix(mix(first, second, blend), third, accent)``.
Against aliasing, edges are as wide as the pixel's footprint, and patterns finer than a pixel fade
to their mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.renderer.geometry import Numbers, Values, fraction
from datasets.procedural.renderer.kernels import fused

_X, _Y, _Z, _SEED = 374761393, 668265263, 1440662683, 974634777
_MIX = 1274126177

Lattice = Int[Tensor, "*#batch"]
Field = Float[Tensor, "*batch"]
Points = Float[Tensor, "*batch 3"]
Seeds = Int[Tensor, "*batch"]


def _finish(state: Seeds) -> Field:
    state = (state ^ ((state >> 13) & 0x7FFFF)) * _MIX
    state = state ^ ((state >> 16) & 0xFFFF)
    return (state & 0xFFFFFF).float() * (1 / 0x1000000)


def hashed(x: Lattice, y: Lattice, seed: Lattice | int = 0) -> Field:
    """Hash int32 lattice points to numbers in [0, 1)."""
    return _finish(x * _X + y * _Y + seed * _SEED)


def whole(values: Field) -> Seeds:
    """Round down to int32."""
    return values.floor().to(torch.int32)


def noise_and_slope(points: Points, seed: Seeds) -> tuple[Field, Points]:
    """Return value noise in [-1, 1] with unit feature size, and its gradient."""
    cell = points.floor()
    fraction = points - cell
    x, y, z = cell.to(torch.int32).unbind(-1)
    u, v, w = (fraction * fraction * (3 - 2 * fraction)).unbind(-1)
    du, dv, dw = (6 * fraction * (1 - fraction)).unbind(-1)
    starts = (x * _X + seed * _SEED, _X), (y * _Y, _Y), (z * _Z, _Z)
    xs, ys, zs = ((axis, axis + prime) for axis, prime in starts)
    corners = [_finish(i + j + k) for k in zs for j in ys for i in xs]
    faces = _lerp(corners, u)
    edges = _lerp(faces, v)
    rise_x = _lerp(_lerp(_rises(corners), v), w)[0]
    slope = [du * rise_x, dv * _lerp(_rises(faces), w)[0], dw * _rises(edges)[0]]
    return 2 * _lerp(edges, w)[0] - 1, 2 * torch.stack(slope, -1)


def _rises(values: list[Tensor]) -> list[Tensor]:
    """Return the differences of neighbouring lattice points along an axis."""
    return [high - low for low, high in zip(values[::2], values[1::2], strict=True)]


def _lerp(values: list[Tensor], share: Tensor) -> list[Tensor]:
    """Interpolate between neighbouring lattice points along an axis."""
    return [low + share * rise for low, rise in zip(values[::2], _rises(values), strict=True)]


@fused
def octaves(points: Points, seed: Seeds, footprint: Field) -> tuple[Field, Points]:
    """Sum four octaves of noise and gradient; octaves finer than the footprint fade out."""
    total, slope = torch.zeros_like(footprint), torch.zeros_like(points)
    scale, strength = 1.0, 0.55
    for octave in range(4):
        value, gradient = noise_and_slope(points * scale, seed + 31 * octave)
        kept = strength * (1.6 - 2.0 * scale * footprint).clamp(0, 1)
        total = total + kept * value
        slope = slope + (kept * scale)[..., None] * gradient
        # A ratio that is no whole number keeps the lattices of the octaves from aligning.
        scale, strength = scale * 2.17, strength * 0.55
    return total, slope


Layers = tuple[Values, Values]


@dataclass(frozen=True)
class PatternInput:
    """Texture coordinates and parameters of a pattern; lengths in periods of the pattern."""

    u: Values
    v: Values
    height: Values
    """Coordinate along the frame's z axis."""
    footprint: Values
    """Width of a pixel."""
    cloud: Values
    """Multi-octave noise in about [-1, 1]."""
    seed: Numbers
    aspect: Values
    detail: Values

    def hash(self, u: Values, v: Values, seed: int = 0) -> Values:
        """Return a random number in [0, 1) for each unit cell of two coordinates."""
        return hashed(whole(u), whole(v), self.seed + seed)

    def faded(self, values: Values, mean: Values | float, fineness: float | int = 1) -> Values:
        """Fade a feature that repeats ``fineness`` times a period to its mean, by the footprint."""
        kept = (1.7 - 1.7 * fineness * self.footprint).clamp(0, 1)
        return mean + kept * (values - mean)


def _step(edge: Values | float, values: Values, width: Values) -> Values:
    """Return an antialiased step from 0 to 1 at an edge."""
    return ((values - edge) / width.clamp_min(1e-3) + 0.5).clamp(0, 1)


def _bar(position: Values, half_width: Values | float, width: Values) -> Values:
    """Return 1 within ``half_width`` of the middle of every period, antialiased."""
    return 1 - _step(half_width, (fraction(position) - 0.5).abs(), width)


def _plain(p: PatternInput) -> Layers:
    return 0 * p.u, 0 * p.u


def _marble(p: PatternInput) -> Layers:
    return _step(0.0, p.cloud, 0.6 + 0 * p.u), (p.cloud * 2 - 0.7).clamp(0, 1)


def _wood(p: PatternInput) -> Layers:
    rings = (p.u**2 * 0.02 + (p.v + 0.7) ** 2).sqrt() + p.detail * p.cloud
    wave = 0.5 + 0.5 * (2 * math.pi * rings).sin()
    fibre = p.hash(p.v * 9, p.u * 0.4)
    return p.faded(wave * wave, 0.4), p.faded(0.25 * fibre, 0.1, 9)


def _courses(p: PatternInput, half_u: Values | float, half_v: Values | float) -> Layers:
    """Return hashes and joints of cells in rows that are shifted against each other."""
    u = p.u / p.aspect + 0.5 * (whole(p.v) % 2).float() * (p.aspect > 1.05)
    joint_u = 1 - _bar(u, half_u, p.footprint / p.aspect)
    return p.hash(u, p.v), torch.maximum(joint_u, 1 - _bar(p.v, half_v, p.footprint))


def _brick(p: PatternInput) -> Layers:
    cell_hash, joint = _courses(p, 0.5 - p.detail / p.aspect, 0.5 - p.detail)
    return p.faded(joint, 3 * p.detail), cell_hash * (1 - joint)


def _planks(p: PatternInput) -> Layers:
    cell_hash, joint = _courses(p, 0.492, 0.485)
    grain = 0.5 + 0.5 * (20 * fraction(p.v) + 30 * cell_hash + 4 * p.detail * p.cloud).sin()
    blend = (0.6 * cell_hash + 0.4 * p.faded(grain, 0.5, 3)).clamp(0, 1)
    return blend, p.faded(joint, 0.03)


def _checker(p: PatternInput) -> Layers:
    first, second = _bar(p.u / p.aspect, 0.25, p.footprint), _bar(p.v, 0.25, p.footprint)
    return p.faded(first + second - 2 * first * second, 0.5), 0 * p.u


def _stripes(p: PatternInput) -> Layers:
    thin = _bar(p.u + 0.31, 0.04, p.footprint)
    return p.faded(_bar(p.u, p.detail, p.footprint), 2 * p.detail), p.faded(thin, 0.08)


def _cloth(p: PatternInput) -> Layers:
    threads = 0.5 + 0.25 * ((25 * p.u).sin() + (25 * p.v).sin())
    bands = 0.5 * (_bar(p.u, p.detail, p.footprint) + _bar(p.v, p.detail, p.footprint))
    return p.faded(bands, p.detail), p.faded(0.35 * threads, 0.17, 4)


def _glyphs(p: PatternInput) -> Layers:
    """Draw lines of text: each letter is 4 by 6 random blocks in a cell of 5 by 9."""
    line, letter = p.v * 3, p.u * 5
    row, column = whole(line), whole(letter)
    length = 3 + hashed(row, row * 0, p.seed) * 30
    written = (p.hash(letter, line, 5) < 0.82) & (column.remainder(40).float() < length)
    x, y = whole(fraction(letter) * 5), whole(fraction(line) * 9)
    block = hashed(column * 5 + x, row * 9 + y, p.seed + 9) < 0.58
    ink = (written & block & (x < 4) & (y > 0) & (y < 7)).float()
    heading = p.hash(p.v * 0.6, p.u * 0.25, 3) < 0.15
    return p.faded(ink, 0.3 * written.float(), 12), 0.8 * heading.float()


def _cells(p: PatternInput) -> Layers:
    """Draw pebbles or cracks by cellular noise (Worley, 1996)."""
    column, row = whole(p.u), whole(p.v)
    nearest = second = torch.full_like(p.u, 9.0)
    cell_hash = torch.zeros_like(p.u)
    for shift in range(9):
        i, j = column + (shift % 3 - 1), row + (shift // 3 - 1)
        x = i.float() + hashed(i, j, p.seed) - p.u
        y = j.float() + hashed(i, j, p.seed + 17) - p.v
        gap = x * x + y * y
        closer = gap < nearest
        second = torch.where(closer, nearest, torch.minimum(second, gap))
        cell_hash = torch.where(closer, hashed(i, j, p.seed + 29), cell_hash)
        nearest = torch.where(closer, gap, nearest)
    crack = 1 - _step(0.06, second.sqrt() - nearest.sqrt(), 0.08 + p.footprint)
    return p.faded(crack, 0.2), p.faded(cell_hash * (1 - crack), 0.4)


def _speckle(p: PatternInput) -> Layers:
    fine, coarse = p.hash(p.u * 8, p.v * 8), p.hash(p.u * 3, p.v * 3, 7)
    spots = p.faded((coarse < 0.5 * p.detail).float(), 0.5 * p.detail, 3)
    return p.faded((fine < p.detail).float(), p.detail, 8), spots


def _gradient(p: PatternInput) -> Layers:
    return 0.5 + 0.5 * (p.height + 0.3 * p.cloud).sin(), 0 * p.u


def _dots(p: PatternInput) -> Layers:
    x, y = fraction(p.u) - 0.5, fraction(p.v) - 0.5
    inside = 1 - _step(0.55 * p.detail + 0.1, (x * x + y * y).sqrt(), p.footprint)
    mean = p.detail**2
    return p.faded(inside, mean), p.faded(inside * (p.hash(p.u, p.v) < 0.3), 0.3 * mean)


def _collage(p: PatternInput) -> Layers:
    """Draw nested blocks and circles at three scales, as on packaging and posters."""
    blend, accent = torch.zeros_like(p.u), torch.zeros_like(p.u)
    for level, scale in enumerate((0.35, 0.9, 2.6)):
        u, v = p.u * scale, p.v * scale / p.aspect
        cell_hash = p.hash(u, v, 11 * level)
        x, y = fraction(u) - 0.5, fraction(v) - 0.5
        is_round = p.hash(u, v, 3 + level) < 0.3
        gap = torch.where(is_round, (x * x + y * y).sqrt(), torch.maximum(x.abs(), y.abs()))
        inside = p.faded(1 - _step(0.25 + 0.25 * cell_hash, gap, scale * p.footprint), 0.4, scale)
        blend = torch.where(
            cell_hash < 0.45, blend * (1 - inside) + inside * (cell_hash * 2), blend
        )
        accent = torch.where(cell_hash > 0.7, accent * (1 - inside) + inside * cell_hash, accent)
    return blend.clamp(0, 1), accent.clamp(0, 1)


def _windows(p: PatternInput) -> Layers:
    """Draw rows of windows with frames."""
    u, v, width = p.u / p.aspect, p.v, p.footprint
    wide, high = (fraction(u) - 0.5).abs(), (fraction(v) - 0.5).abs()
    opening = (1 - _step(0.24, wide, width)) * (1 - _step(0.34, high, width))
    frame = (1 - _step(0.29, wide, width)) * (1 - _step(0.39, high, width))
    bars = torch.maximum(_bar(2 * u, 0.06, 2 * width), _bar(3 * v, 0.05, 3 * width))
    glass = opening * (1 - bars)
    return p.faded(glass, 0.25), p.faded(frame - glass, 0.15).clamp(0, 1)


def _grass(p: PatternInput) -> Layers:
    """Draw blades or fur by elongated noise at two scales."""
    long = p.hash(p.u * 14 + 2 * p.cloud, p.v * 3)
    fine = p.hash(p.u * 31, p.v * 7 + p.cloud, 1)
    return 0.6 * p.faded(long, 0.5, 9) + 0.2 * (p.cloud + 1), 0.6 * p.faded(fine, 0.5, 16)


def _floral(p: PatternInput) -> Layers:
    """Draw scattered flowers with petals and leaves."""
    cell_hash, other_hash = p.hash(p.u, p.v), p.hash(p.u, p.v, 13)
    x, y = fraction(p.u) - 0.3 - 0.4 * cell_hash, fraction(p.v) - 0.3 - 0.4 * other_hash
    radius, angle = (x * x + y * y).sqrt(), torch.atan2(y, x)
    petals = (
        0.16 + 0.1 * cell_hash + 0.05 * (angle * (3 + 2 * (cell_hash > 0.5)) + 9 * cell_hash).cos()
    )
    flower = 1 - _step(petals, radius + 0.05 * p.cloud, p.footprint)
    rings = 0.5 + 0.5 * (40 * radius + 5 * angle.cos() + 4 * p.cloud).sin()
    leaves = 1 - _step(0.4 * (2 * angle + 6 * other_hash).sin().abs() ** 4, radius, p.footprint)
    has_flower = (other_hash < 0.85).float()
    blend = p.faded(flower * (0.5 + 0.5 * rings) * has_flower, 0.15)
    return blend, p.faded(leaves * (1 - flower) * has_flower, 0.1)


PATTERN_FUNCTIONS: dict[str, Callable[[PatternInput], Layers]] = {
    function.__name__.lstrip("_"): function
    for function in (
        *(_plain, _marble, _wood, _brick, _checker, _stripes, _cloth, _glyphs, _cells, _speckle),
        *(_gradient, _planks, _dots, _collage, _windows, _grass, _floral),
    )
} | {"photo": _collage}  # Only a substitute where no photographs are given.
PATTERNS = tuple(PATTERN_FUNCTIONS)
"""Names of the patterns; the row of a material has the index."""
