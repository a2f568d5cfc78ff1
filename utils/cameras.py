"""Pinhole cameras, rays and projection, in the convention that the whole project follows.

* Axes are OpenCV's: x right, y down, z forward.
* ``c2w`` is the rigid 4x4 map from camera to world coordinates; ``w2c`` is always derived.
* ``intrinsics`` is 3x3, in pixels. The image covers ``[0, width] x [0, height]``, so the centre of
  the pixel in column ``i`` and row ``j`` is ``(i + 0.5, j + 0.5)``.
* Depth is z-depth (distance along the camera's z axis), never distance along the ray.

Readers convert on entry; nothing downstream converts again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_MAX_OFFSET = 100.0
"""Largest coordinate, in units of the spread of the cameras, that float32 represents well."""


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras."""

    intrinsics: Float[Tensor, "*batch 3 3"]
    """``[u, v, 1]^T ~ intrinsics @ [x, y, z]^T``: pixel (u, v) of camera point (x, y, z)."""
    c2w: Float[Tensor, "*batch 4 4"]
    """Camera-to-world, rigid."""

    @property
    def w2c(self) -> Float[Tensor, "*batch 4 4"]:
        """World-to-camera, the inverse of ``c2w``."""
        return invert_rigid(self.c2w)

    @property
    def centers(self) -> Float[Tensor, "*batch 3"]:
        """Camera centres in the world."""
        return self.c2w[..., :3, 3]

    @property
    def shape(self) -> torch.Size:
        """The batch axes."""
        return self.c2w.shape[:-2]

    def __getitem__(self, index: object) -> Cameras:
        """Index the batch axes as a tensor would be indexed."""
        return Cameras(self.intrinsics[index], self.c2w[index])  # pyright: ignore[reportArgumentType]

    def to(self, device: torch.device | str) -> Cameras:
        """Return the cameras on another device."""
        return Cameras(self.intrinsics.to(device), self.c2w.to(device))

    def scaled_world(self, factor: float) -> Cameras:
        """Return the cameras of a world measured in other units (``new = factor * old``)."""
        c2w = self.c2w.clone()
        c2w[..., :3, 3] *= factor
        return Cameras(self.intrinsics, c2w)


@dataclass(frozen=True)
class LengthUnit:
    """The unit in which lengths are shown to users."""

    name: str = "scene units"
    factor: float = 1.0
    """Shown value = factor * length in the scene's unit."""


def invert_rigid(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Invert rigid transforms without a general matrix inverse."""
    with full_precision(transform):
        rotation = transform[..., :3, :3].transpose(-1, -2)
        translation = -rotation @ transform[..., :3, 3:]
        return torch.cat([torch.cat([rotation, translation], -1), transform[..., 3:, :]], -2)


def recentred(
    c2w: Float[Tensor, "view 4 4"],
) -> tuple[Float[Tensor, "view 4 4"], Float[Tensor, " 3"]]:
    """Return float32 poses relative to an origin, and the origin in float64.

    The origin is the mean camera centre if the coordinates are too large for float32, as those of
    maps are, else 0.
    """
    centers = c2w[:, :3, 3].double()
    spread = (centers - centers.mean(0)).norm(dim=-1).max()
    origin = torch.zeros(3, dtype=torch.float64)
    if centers.abs().max() > _MAX_OFFSET * spread:
        origin = centers.mean(0)
    near = c2w.double().clone()
    near[:, :3, 3] -= origin
    return near.float(), origin


def full_precision(tensor: Tensor) -> torch.autocast:
    """Disable autocast: a matrix product in bf16 moves a projected point by whole pixels."""
    return torch.autocast(tensor.device.type, enabled=False)


def resize_intrinsics(
    intrinsics: Float[Tensor, "*batch 3 3"], scale_x: float, scale_y: float
) -> Float[Tensor, "*batch 3 3"]:
    """Return the intrinsics of an image resized by (scale_x, scale_y) = new size / old size."""
    factors = intrinsics.new_tensor([scale_x, scale_y, 1.0])
    return intrinsics * factors[:, None]


def crop_intrinsics(
    intrinsics: Float[Tensor, "*batch 3 3"], left: float, top: float
) -> Float[Tensor, "*batch 3 3"]:
    """Return the intrinsics of an image without its first ``left`` columns and ``top`` rows."""
    shifted = intrinsics.clone()
    shifted[..., 0, 2] -= left
    shifted[..., 1, 2] -= top
    return shifted


def to_camera(
    points: Float[Tensor, "*#batch point 3"], cameras: Cameras
) -> Float[Tensor, "*#batch point 3"]:
    """Transform world points into camera coordinates. Batch axes broadcast."""
    w2c = cameras.w2c
    return apply_matrix(w2c[..., :3, :3], points) + w2c[..., None, :3, 3]


def apply_matrix(
    matrix: Float[Tensor, "*#batch 3 3"], vectors: Float[Tensor, "*#batch vector 3"]
) -> Float[Tensor, "*#batch vector 3"]:
    """Return ``matrix @ vector`` of each vector, in the vectors' precision also under autocast.

    Written out: with three columns a matrix product is slower on a GPU, and cannot be fused.
    """
    x, y, z = (vectors[..., i, None] * matrix[..., None, :, i] for i in range(3))
    return x + y + z


def project(
    points: Float[Tensor, "*#batch point 3"], cameras: Cameras
) -> tuple[Float[Tensor, "*#batch point 2"], Float[Tensor, "*#batch point"]]:
    """Return pixels and z-depths of world points in each camera. Batch axes broadcast.

    Pixels of points with depth <= 0 are finite but meaningless.
    """
    in_camera = to_camera(points, cameras)
    depths = in_camera[..., 2]
    rays = in_camera[..., :2] / depths.clamp_min(1e-6)[..., None]
    linear = cameras.intrinsics[..., :2, :2].transpose(-1, -2)
    with full_precision(points):
        pixels = rays @ linear + cameras.intrinsics[..., None, :2, 2]
    return pixels, depths


def unproject(
    pixels: Float[Tensor, "*#batch point 2"],
    depths: Float[Tensor, "*#batch point"],
    cameras: Cameras,
) -> Float[Tensor, "*#batch point 3"]:
    """Return world points of pixels with known z-depth: the inverse of ``project``."""
    in_camera = pixel_directions(pixels, cameras.intrinsics) * depths[..., None]
    return rotate(in_camera, cameras) + cameras.c2w[..., None, :3, 3]


def rotate(
    directions: Float[Tensor, "*#batch point 3"], cameras: Cameras
) -> Float[Tensor, "*#batch point 3"]:
    """Rotate directions from camera to world coordinates."""
    return apply_matrix(cameras.c2w[..., :3, :3], directions)


def pixel_directions(
    pixels: Float[Tensor, "*#batch point 2"], intrinsics: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*#batch point 3"]:
    """Return directions through pixels in camera coordinates, with z = 1."""
    focal_x, focal_y = intrinsics[..., None, 0, 0], intrinsics[..., None, 1, 1]
    skew = intrinsics[..., None, 0, 1]
    y = (pixels[..., 1] - intrinsics[..., None, 1, 2]) / focal_y
    x = (pixels[..., 0] - intrinsics[..., None, 0, 2] - skew * y) / focal_x
    return torch.stack([x, y, torch.ones_like(x)], -1)


@dataclass(frozen=True)
class Rays:
    """Rays in world coordinates: ``origins + t * directions``, where ``t`` is z-depth."""

    origins: Float[Tensor, "*batch ray 3"]
    directions: Float[Tensor, "*batch ray 3"]

    @property
    def viewdirs(self) -> Float[Tensor, "*batch ray 3"]:
        """Unit directions."""
        return torch.nn.functional.normalize(self.directions, dim=-1)

    def at(self, t: Float[Tensor, "*batch ray sample"]) -> Float[Tensor, "*batch ray sample 3"]:
        """Points at z-depths ``t``."""
        return self.origins[..., None, :] + t[..., None] * self.directions[..., None, :]

    def part(self, rays: slice) -> Rays:
        """Return a slice of the rays."""
        return Rays(self.origins[..., rays, :], self.directions[..., rays, :])


def pixel_rays(cameras: Cameras, pixels: Float[Tensor, "*#batch ray 2"]) -> Rays:
    """Cast rays through pixel positions."""
    world = rotate(pixel_directions(pixels, cameras.intrinsics), cameras)
    return Rays(cameras.centers[..., None, :].expand_as(world), world)


def pixel_grid(height: int, width: int, device: torch.device) -> Float[Tensor, "pixel 2"]:
    """Return the centres of all pixels of an image, row by row."""
    rows = torch.arange(height, device=device) + 0.5
    columns = torch.arange(width, device=device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], -1)


def cell_grid(
    cells: tuple[int, int], size: tuple[int, int], device: torch.device
) -> Float[Tensor, "cell 2"]:
    """Return the pixel positions of the centres of (rows, columns) equal cells of an image."""
    x, y = pixel_grid(*cells, device).unbind(-1)
    return torch.stack([x * (size[1] / cells[1]), y * (size[0] / cells[0])], -1)


def view_grid(
    pixels: Float[Tensor, "*batch 2"], size: tuple[int, int]
) -> Float[Tensor, "*batch 2"]:
    """Convert pixel positions, for an image (height, width), to ``grid_sample`` coordinates."""
    x, y = pixels.unbind(-1)
    return torch.stack([x * (2 / size[1]) - 1, y * (2 / size[0]) - 1], -1)


@dataclass(frozen=True)
class Reprojection:
    """Surface points of each view, projected into every other view."""

    grid: Float[Tensor, "batch view other query 2"]
    """``grid_sample`` coordinates; 0 where not seen."""
    depths: Float[Tensor, "batch view other query"]
    """z-depth in the other view."""
    seen: Bool[Tensor, "batch view other query"]
    """Whether the point lies inside the image of another view that the mask includes."""


def reproject(
    pixels: Float[Tensor, "query 2"],
    depth: Float[Tensor, "batch view query"],
    cameras: Cameras,
    size: tuple[int, int],
    view_mask: Bool[Tensor, "batch view"],
) -> Reprojection:
    """Unproject the same pixels of every view by z-depth and project them into all views.

    ``size`` is the height and width of all images.
    """
    points = unproject(pixels, depth, cameras)
    # Axes (batch, view, other): every view's points in every camera.
    projected, z = project(points[:, :, None], cameras[:, None])
    grid = view_grid(projected, size)
    same_view = torch.eye(depth.shape[1], dtype=torch.bool, device=z.device)[:, :, None]
    in_image = (grid.abs() <= 1).all(-1) & (z > 1e-6)
    seen = in_image & ~same_view & view_mask[:, None, :, None]
    return Reprojection(torch.where(seen[..., None], grid, 0), z, seen)
