"""The cost volume in front of the first source, and what is read of a scene along rays.

Positions follow ``utils.cameras``. A feature map's cell (column i, row j) lies at the middle of the
pixel (4i, 4j), as convolutions of stride 2 put it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from models.projection import project_samples
from models.ray_sampling import DepthPlanes
from utils.cameras import Cameras, Rays, full_precision, pixel_grid, project, unproject, view_grid

STEP = 4
"""Pixels from one cell of a feature map to the next."""


@dataclass(frozen=True)
class EncodedScene:
    """Source views and their encoding volume: all that rendering needs."""

    images: Float[Tensor, "batch view 3 height width"]
    """RGB in [0, 1]."""
    cameras: Cameras
    """Batch axes ``(batch, view)``; the volume stands in front of view 0."""
    volume: Float[Tensor, "batch channel plane row column"]
    planes: DepthPlanes
    """Of the volume, the first at near, the last at far."""
    pad: int
    """Cells of the volume beyond every side of the image of view 0."""

    def read(
        self, rays: Rays, t: Float[Tensor, "batch ray sample"]
    ) -> tuple[Float[Tensor, "batch ray sample 3"], Float[Tensor, "batch ray sample channel"]]:
        """Return positions in the volume, from 0 to 1, and what is known at the points of rays.

        That is the volume, then of each source the colour and whether it sees the point.
        """
        height, width = self.images.shape[-2:]
        grid, depths = project_samples(rays, t, self.cameras, (height, width))
        positions = self._positions(grid[:, 0], depths[:, 0])
        volume = F.grid_sample(self.volume, (positions * 2 - 1)[:, None], align_corners=True)
        colors = F.grid_sample(
            *(self.images.flatten(0, 1), grid.flatten(0, 1)),
            padding_mode="border",
            align_corners=False,
        )
        # Between the middles of the outermost pixels.
        seen = (grid.abs() < grid.new_tensor([1 - 1 / width, 1 - 1 / height])).all(-1)
        colors = rearrange(colors, "(b v) c r s -> b r s v c", b=len(t))
        seen = rearrange(seen, "b v r s -> b r s v 1").to(colors)
        features = rearrange(volume, "b c 1 r s -> b r s c")
        return positions, torch.cat([features, torch.cat([colors, seen], -1).flatten(-2)], -1)

    def directions(self, viewdirs: Float[Tensor, "batch ray 3"]) -> Float[Tensor, "batch ray 3"]:
        """Turn unit directions in the world into the frame of view 0."""
        with full_precision(viewdirs):
            return viewdirs @ self.cameras.c2w[:, 0, :3, :3]

    def _positions(
        self, grid: Float[Tensor, "batch ray sample 2"], depths: Float[Tensor, "batch ray sample"]
    ) -> Float[Tensor, "batch ray sample 3"]:
        """Turn positions in view 0 into those in the volume: across, down, from near to far.

        As the public definition has it, sides count cells here, but steps between cells where the
        volume is read: up to half a cell of difference, which its weights have learnt.
        """
        sides = grid.new_tensor([self.images.shape[-1], self.images.shape[-2]])
        place = ((grid + 1) / 2 * sides - 0.5) / (sides - 1)
        cells = sides / STEP
        padded = (place * cells + self.pad) / (cells + 2 * self.pad)
        return torch.cat([padded, self.planes.coordinates(depths)[..., None]], -1)


def build_cost_volume(
    images: Float[Tensor, "view 3 height width"],
    features: Float[Tensor, "view channel rows columns"],
    cameras: Cameras,
    depths: Float[Tensor, " plane"],
    pad: int,
) -> Float[Tensor, "1 inputs plane padded_rows padded_columns"]:
    """Warp all views of a scene onto planes in front of view 0 (Chen et al. 2021, section 3.1).

    Channels are the colours of each view and the variance of the features over the views that see a
    cell. Beyond its own image view 0 is black and has no features, but counts.
    """
    rows, columns = features.shape[-2:]
    height, width, around = rows + 2 * pad, columns + 2 * pad, (pad, pad, pad, pad)
    colors = F.interpolate(images, (rows, columns), mode="bilinear", align_corners=False)
    maps = torch.cat([colors, features], 1)
    cells = pixel_grid(height, width, images.device) - 0.5 - pad
    points = unproject(
        (cells * STEP + 0.5).repeat(len(depths), 1),
        depths.repeat_interleave(len(cells)),
        cameras[0],
    )
    first = F.pad(maps[0], around)[:, None].expand(-1, len(depths), -1, -1)
    warped, total = [first[:3]], first[3:]
    squares, count = total.square(), torch.ones_like(total[:1])
    # Between the middles of the outermost cells.
    inside = cells.new_tensor([1 - 1 / columns, 1 - 1 / rows])
    for view in range(1, len(images)):
        pixels, _ = project(points, cameras[view])
        grid = view_grid((pixels - 0.5) / STEP + 0.5, (rows, columns))
        grid = grid.view(1, len(depths) * height, width, 2)
        found = F.grid_sample(maps[view : view + 1], grid, align_corners=False)
        found = found.view(-1, len(depths), height, width)
        warped.append(found[:3])
        total, squares = total + found[3:], squares + found[3:].square()
        count = count + (grid.abs() < inside).all(-1).view(count.shape)
    return torch.cat([*warped, squares / count - (total / count).square()])[None]
