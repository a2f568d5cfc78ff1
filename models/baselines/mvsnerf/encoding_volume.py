"""The cost volume in front of the first source, and sampling of the encoded scene along rays.

The centre of a feature map's cell (column i, row j) is that of the image's pixel (4i, 4j), as
convolutions of stride 2 place it.
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
    """Source views and their encoding volume."""

    images: Float[Tensor, "batch view 3 height width"]
    """RGB in [0, 1]."""
    cameras: Cameras
    """Batch axes ``(batch, view)``; the volume is in the frustum of view 0."""
    volume: Float[Tensor, "batch channel plane row column"]
    planes: DepthPlanes
    """Planes of the volume; the first is at near, the last at far."""
    pad: int
    """Cells of the volume beyond every side of the image of view 0."""

    def read(
        self, rays: Rays, t: Float[Tensor, "batch ray sample"]
    ) -> tuple[Float[Tensor, "batch ray sample 3"], Float[Tensor, "batch ray sample channel"]]:
        """Return positions in the volume, from 0 to 1, and features of ray points.

        The features are those of the volume, then colour and visibility in each source.
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
        # Visible between the centres of the outermost pixels.
        seen = (grid.abs() < grid.new_tensor([1 - 1 / width, 1 - 1 / height])).all(-1)
        colors = rearrange(colors, "(b v) c r s -> b r s v c", b=len(t))
        seen = rearrange(seen, "b v r s -> b r s v 1").to(colors)
        features = rearrange(volume, "b c 1 r s -> b r s c")
        return positions, torch.cat([features, torch.cat([colors, seen], -1).flatten(-2)], -1)

    def directions(self, viewdirs: Float[Tensor, "batch ray 3"]) -> Float[Tensor, "batch ray 3"]:
        """Rotate unit directions from world to view 0."""
        with full_precision(viewdirs):
            return viewdirs @ self.cameras.c2w[:, 0, :3, :3]

    def _positions(
        self, grid: Float[Tensor, "batch ray sample 2"], depths: Float[Tensor, "batch ray sample"]
    ) -> Float[Tensor, "batch ray sample 3"]:
        """Convert positions in view 0 to positions in the volume: across, down, near to far.

        As in the official code, whose weights depend on it, the size is counted in cells here, but
        in steps between cells when the volume is read: a difference of up to half a cell.
        """
        sides = grid.new_tensor([self.images.shape[-1], self.images.shape[-2]])
        positions = ((grid + 1) / 2 * sides - 0.5) / (sides - 1)
        cells = sides / STEP
        padded = (positions * cells + self.pad) / (cells + 2 * self.pad)
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
    cell. In the padding around its image view 0 counts with zero colours and features.
    """
    rows, columns = features.shape[-2:]
    height, width = rows + 2 * pad, columns + 2 * pad
    colors = F.interpolate(images, (rows, columns), mode="bilinear", align_corners=False)
    maps = torch.cat([colors, features], 1)
    cells = pixel_grid(height, width, images.device) - 0.5 - pad
    points = unproject(
        (cells * STEP + 0.5).repeat(len(depths), 1),
        depths.repeat_interleave(len(cells)),
        cameras[0],
    )
    first = F.pad(maps[0], (pad, pad, pad, pad))[:, None].expand(-1, len(depths), -1, -1)
    warped, total = [first[:3]], first[3:]
    squares, count = total.square(), torch.ones_like(total[:1])
    # Visible between the centres of the outermost cells.
    inside = cells.new_tensor([1 - 1 / columns, 1 - 1 / rows])
    for view in range(1, len(images)):
        pixels, _ = project(points, cameras[view])
        grid = view_grid((pixels - 0.5) / STEP + 0.5, (rows, columns))
        grid = grid.view(1, len(depths) * height, width, 2)
        read = F.grid_sample(maps[view : view + 1], grid, align_corners=False)
        read = read.view(-1, len(depths), height, width)
        warped.append(read[:3])
        total, squares = total + read[3:], squares + read[3:].square()
        count = count + (grid.abs() < inside).all(-1).view(count.shape)
    return torch.cat([*warped, squares / count - (total / count).square()])[None]
