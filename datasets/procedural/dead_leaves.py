"""Pictures of overlapping shapes of all sizes, as surfaces to look at."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_LARGEST = 0.4
"""Radius of the largest shapes, in sides of the picture."""
_SMALLEST = (0.01, 0.06)
"""Radius of the smallest shapes, in one picture and in another."""
_COVERED = 4.0
"""So many times the shapes cover the picture."""


def dead_leaves(side: int, seed: int) -> Float[Tensor, "3 side side"]:
    """Paint one picture: areas that hide each other, with sizes as in nature.

    Radii follow a power law with exponent -3, which makes the picture look alike at every scale
    (Lee, Mumford and Huang, 2001); every area has a colour from the picture's palette, a shading
    and a grain.
    """
    random = np.random.default_rng(seed)
    palette = _palette(random)
    grains = [_grain(side, random) for _ in range(4)]
    roundness = random.uniform(0.2, 1.0)
    whole = (slice(0, side), slice(0, side))
    picture = _area(whole, palette, grains, random)
    smallest = np.exp(random.uniform(*np.log(_SMALLEST)))
    covered = 0.0
    while covered < _COVERED:
        share = _radius(smallest, random)
        covered += 2 * share**2
        radius = share * side
        center = random.uniform(-0.1, 1.1, 2) * side
        outline = _outline(center, radius, roundness, random)
        low = np.floor(outline.min(0)).astype(int).clip(0, side)
        high = (np.ceil(outline.max(0)).astype(int) + 1).clip(0, side)
        if (high <= low).any():
            continue
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        # Sixteenths of a pixel: edges are smooth.
        cv2.fillPoly(mask, [np.round((outline - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        cover = mask[..., None].astype(np.float32) / 255
        region = (slice(low[1], high[1]), slice(low[0], high[0]))
        area = _area(region, palette, grains, random)
        picture[region] = cover * area + (1 - cover) * picture[region]
    return torch.from_numpy(picture.clip(0, 1)).permute(2, 0, 1).contiguous()


def _radius(smallest: float, random: np.random.Generator) -> float:
    """Draw from a density that falls with the third power, by inverting its integral."""
    share = random.uniform()
    return (_LARGEST**-2 + share * (smallest**-2 - _LARGEST**-2)) ** -0.5


def _palette(random: np.random.Generator) -> np.ndarray:
    """Draw a few colours that share a tint, from dark to bright."""
    count = random.integers(3, 9)
    tint = random.uniform(-0.12, 0.12, 3)
    grey = np.linspace(0.05, 0.95, count) + random.normal(0, 0.06, count)
    spread = random.uniform(0.03, 0.2)
    return (grey[:, None] + tint + random.normal(0, spread, (count, 3))).clip(0.02, 0.98)


def _grain(side: int, random: np.random.Generator) -> np.ndarray:
    """Return noise whose amplitude falls with a power of the frequency, of unit deviation."""
    slope = random.uniform(0.6, 1.6)
    stretch = np.exp(random.normal(0, 0.5, 2))
    y, x = np.meshgrid(*[np.fft.fftfreq(side) * factor for factor in stretch], indexing="ij")
    amplitude = 1 / np.maximum(np.hypot(x, y), 1 / side) ** slope
    amplitude[0, 0] = 0
    spectrum = amplitude * np.exp(2j * np.pi * random.uniform(size=(side, side)))
    noise = np.fft.ifft2(spectrum).real
    return (noise / noise.std()).astype(np.float32)


def _area(
    region: tuple[slice, slice],
    palette: np.ndarray,
    grains: list[np.ndarray],
    random: np.random.Generator,
) -> np.ndarray:
    """Return a region of the picture in one colour with its shading and grain."""
    color = palette[random.integers(len(palette))]
    grain = grains[random.integers(len(grains))]
    if random.uniform() < 0.5:
        grain = grain.T
    rows, columns = (np.linspace(-0.5, 0.5, part.stop - part.start) for part in region)
    slope = random.normal(0, 0.15, 2)
    shade = 1 + slope[0] * rows[:, None] + slope[1] * columns
    strength = np.exp(random.uniform(np.log(0.01), np.log(0.15)))
    return ((shade + strength * grain[region])[..., None] * color).astype(np.float32)


def _outline(
    center: np.ndarray, radius: float, roundness: float, random: np.random.Generator
) -> np.ndarray:
    """Return the corners of an ellipse or of a polygon."""
    corners = 24 if random.uniform() < roundness else random.integers(3, 7)
    angles = 2 * np.pi * (np.arange(corners) + random.uniform(0, 0.4, corners)) / corners
    points = np.stack([np.cos(angles), np.sin(angles) * random.uniform(0.25, 1.0)], -1)
    turn = random.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return center + radius * points @ rotation.T
