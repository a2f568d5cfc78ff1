"""Rays whose direction has camera-z = 1, so that the ray parameter ``t`` is z-depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from utils.cameras import Cameras, pixel_directions, rotate


@dataclass(frozen=True)
class Rays:
    """Rays in the world: ``points = origins + t * directions`` with ``t`` the z-depth."""

    origins: Float[Tensor, "*batch ray 3"]
    directions: Float[Tensor, "*batch ray 3"]

    @property
    def viewdirs(self) -> Float[Tensor, "*batch ray 3"]:
        """Unit directions."""
        return torch.nn.functional.normalize(self.directions, dim=-1)

    def at(self, t: Float[Tensor, "*batch ray sample"]) -> Float[Tensor, "*batch ray sample 3"]:
        """Points at z-depths ``t``."""
        return self.origins[..., None, :] + t[..., None] * self.directions[..., None, :]


def pixel_rays(cameras: Cameras, pixels: Float[Tensor, "*#batch ray 2"]) -> Rays:
    """Cast rays through pixel positions (half-pixel convention of ``utils.cameras``)."""
    world = rotate(pixel_directions(pixels, cameras.intrinsics), cameras)
    return Rays(cameras.centers[..., None, :].expand_as(world), world)


def pixel_grid(height: int, width: int, device: torch.device) -> Float[Tensor, "pixel 2"]:
    """Centres of all pixels of an image, row by row."""
    rows = torch.arange(height, device=device) + 0.5
    columns = torch.arange(width, device=device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], -1)


def cell_grid(
    cells: tuple[int, int], size: tuple[int, int], device: torch.device
) -> Float[Tensor, "cell 2"]:
    """Pixel positions of the centres of (rows, columns) of cells that divide an image evenly."""
    x, y = pixel_grid(*cells, device).unbind(-1)
    return torch.stack([x * (size[1] / cells[1]), y * (size[0] / cells[0])], -1)


def view_grid(
    pixels: Float[Tensor, "*batch 2"], size: tuple[int, int]
) -> Float[Tensor, "*batch 2"]:
    """Turn pixel positions of an image of the given height and width into ``grid_sample``'s."""
    x, y = pixels.unbind(-1)
    return torch.stack([x * (2 / size[1]) - 1, y * (2 / size[0]) - 1], -1)
