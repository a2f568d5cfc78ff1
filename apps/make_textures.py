"""Generate textures for procedural worlds with the dead leaves model.

For example: python -m apps.make_textures --out textures. Overlapping shapes of all sizes reproduce
many statistics of photographs (Lee, Mumford and Huang, "Occlusion models for natural images",
2001). Pass the folder to training as texture_folder or world_photos; it may also contain your own
photographs.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor

from utils.config import command
from utils.errors import UserError
from utils.files import check_output_folder
from utils.images import save_image
from utils.settings import Count, Settings, Within

_MAX_RADIUS = 0.4
_MIN_RADIUS = (0.01, 0.06)
"""Range of the smallest radius. Radii are relative to the side of the image."""
_COVERAGE = 4.0
"""Total area of the shapes, relative to the image."""


@dataclass(frozen=True)
class TextureConfig(Settings):
    """All settings of ``python -m apps.make_textures``."""

    out: str = "textures"
    """folder for the images"""
    count: Count = 160
    """number of images"""
    side: Annotated[int, Within(16)] = 256
    """width and height in pixels"""
    seed: int = 0
    """seed of the first image"""


def dead_leaves(side: int, seed: int) -> Float[Tensor, "3 side side"]:
    """Generate one image of occluding shapes with random colour, shading and noise."""
    rng = np.random.default_rng(seed)
    palette, grains = _palette(rng), [_noise(side, rng) for _ in range(4)]
    roundness = rng.uniform(0.2, 1.0)
    image = _shaded_region((slice(0, side), slice(0, side)), palette, grains, rng)
    min_radius = np.exp(rng.uniform(*np.log(_MIN_RADIUS)))
    covered = 0.0
    while covered < _COVERAGE:
        # Sample the scale-invariant density r^-3 by its inverse distribution function.
        radius = (_MAX_RADIUS**-2 + rng.uniform() * (min_radius**-2 - _MAX_RADIUS**-2)) ** -0.5
        covered += 2 * radius**2
        outline = _outline(rng.uniform(-0.1, 1.1, 2) * side, radius * side, roundness, rng)
        low = np.floor(outline.min(0)).astype(int).clip(0, side)
        high = (np.ceil(outline.max(0)).astype(int) + 1).clip(0, side)
        if (high <= low).any():
            continue
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        # The shift of 4 bits gives corners a precision of 1/16 pixel.
        cv2.fillPoly(mask, [np.round((outline - low) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        cover = mask[..., None].astype(np.float32) / 255
        region = (slice(low[1], high[1]), slice(low[0], high[0]))
        image[region] += cover * (_shaded_region(region, palette, grains, rng) - image[region])
    return torch.from_numpy(image.clip(0, 1)).permute(2, 0, 1).contiguous()


def _palette(rng: Generator) -> np.ndarray:
    """Sample 3 to 8 colours of one tint, from dark to bright."""
    count, tint = rng.integers(3, 9), rng.uniform(-0.12, 0.12, 3)
    grey = np.linspace(0.05, 0.95, count) + rng.normal(0, 0.06, count)
    spread = rng.uniform(0.03, 0.2)
    return (grey[:, None] + tint + rng.normal(0, spread, (count, 3))).clip(0.02, 0.98)


def _noise(side: int, rng: Generator) -> np.ndarray:
    """Sample noise with a power-law spectrum and unit standard deviation."""
    slope, stretch = rng.uniform(0.6, 1.6), np.exp(rng.normal(0, 0.5, 2))
    y, x = np.meshgrid(*[np.fft.fftfreq(side) * factor for factor in stretch], indexing="ij")
    amplitude = 1 / np.maximum(np.hypot(x, y), 1 / side) ** slope
    amplitude[0, 0] = 0
    noise = np.fft.ifft2(amplitude * np.exp(2j * np.pi * rng.uniform(size=(side, side)))).real
    return (noise / noise.std()).astype(np.float32)


def _shaded_region(
    region: tuple[slice, slice], palette: np.ndarray, grains: list[np.ndarray], rng: Generator
) -> np.ndarray:
    """Return a region of the image in one colour with linear shading and noise."""
    color, grain = palette[rng.integers(len(palette))], grains[rng.integers(len(grains))]
    grain = grain.T if rng.uniform() < 0.5 else grain
    rows, columns = (np.linspace(-0.5, 0.5, part.stop - part.start) for part in region)
    slope = rng.normal(0, 0.15, 2)
    shade = 1 + slope[0] * rows[:, None] + slope[1] * columns
    strength = np.exp(rng.uniform(np.log(0.01), np.log(0.15)))
    return ((shade + strength * grain[region])[..., None] * color).astype(np.float32)


def _outline(center: np.ndarray, radius: float, roundness: float, rng: Generator) -> np.ndarray:
    """Sample the vertices of an ellipse or a polygon."""
    corners = 24 if rng.uniform() < roundness else rng.integers(3, 7)
    angles = 2 * np.pi * (np.arange(corners) + rng.uniform(0, 0.4, corners)) / corners
    points = np.stack([np.cos(angles), np.sin(angles) * rng.uniform(0.25, 1.0)], -1)
    angle = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return center + radius * points @ rotation.T


def write_textures(config: TextureConfig) -> str:
    """Write the images and return a summary line."""
    folder = check_output_folder(Path(config.out))
    if any(folder.glob("leaves_*.jpg")):
        raise UserError(f"{folder}: already contains textures; choose another --out or remove them")
    for index in range(config.count):
        image = dead_leaves(config.side, config.seed + index)
        save_image(folder / f"leaves_{index:03d}.jpg", image)
    return f"{config.count} images in {folder}"


main = command(TextureConfig, write_textures, __doc__)

if __name__ == "__main__":
    sys.exit(main())
