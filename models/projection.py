"""Projection of ray points into the source views, and sampling of the views' maps there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from models.depth_prior import DepthPrior
from models.kernels.bilinear import read_bilinear
from models.kernels.triton_support import use_kernels
from models.ray_sampling import DepthPlanes
from utils.cameras import Cameras, Rays, apply_matrix, to_camera

MIN_DEPTH = 1e-6
"""z-depth in a source camera up to which points are not visible."""
VISIBLE_BEHIND = 1.0
"""Plane spacings behind a view's surface up to which a point counts as visible from it."""


@dataclass(frozen=True)
class SceneFeatures:
    """An encoded set of source views: all that rendering needs. Maps cover the whole image."""

    images: Float[Tensor, "batch view 3 height width"]
    features: Float[Tensor, "batch view channel map_height map_width"]
    """For ray samples and the second level of the cost volume."""
    coarse_features: Float[Tensor, "batch view coarse_channel coarse_height coarse_width"]
    """For the first level of the cost volume."""
    cameras: Cameras
    prior: DepthPrior
    view_mask: Bool[Tensor, "batch view"] | None = None
    """Views that exist; None if all do."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.images.shape[-2], self.images.shape[-1]

    def average_color(self) -> Float[Tensor, "batch 3"]:
        """Return the mean over the pixels of all views that exist."""
        means = self.images.float().mean((3, 4))
        if self.view_mask is None:
            return means.mean(1)
        shares = self.view_mask / self.view_mask.sum(1, keepdim=True)
        return (means * shares[..., None]).sum(1)


@dataclass(frozen=True)
class ProjectedPoints:
    """Ray points in the source views."""

    grid: Float[Tensor, "batch view ray sample 2"]
    """Position in the image, both axes from -1 to 1; 0 for points that are not valid."""
    depths: Float[Tensor, "batch view ray sample"]
    """z-depth in the source camera; may be negative."""
    valid: Bool[Tensor, "batch view ray sample"]
    """The point is in front of the source camera and inside its (padded) image; the view exists."""


@dataclass(frozen=True)
class DepthResiduals:
    """Ray points relative to the depth prior of each view, along that view's line of sight."""

    residuals: Float[Tensor, "batch view ray sample"]
    """Distance behind the prior's surface in plane spacings, squashed to (-1, 1)."""
    confidence: Float[Tensor, "batch view ray sample"]
    """In [0, 1]; 0 without a prior."""
    visibility: Float[Tensor, "batch view ray sample"]
    """From 1 in front of a confident surface to 0 behind it."""


@dataclass(frozen=True)
class SourceSamples:
    """Source views sampled at the points of bundles; arbitrary but finite where not valid."""

    features: Float[Tensor, "batch view ray sample channel"]
    colors: Float[Tensor, "batch view ray sample 3"]
    """Means over the pixels of the bundle."""
    pixel_colors: Float[Tensor, "batch view ray sample values"]
    """Colours of the bundle's pixels, concatenated."""
    directions: Float[Tensor, "batch view ray sample 4"]
    """Unit vector of the difference between the target's and the source's viewing direction, and
    their dot product, as in IBRNet (Wang et al. 2021)."""
    depth: DepthResiduals
    valid: Bool[Tensor, "batch view ray sample"]


@dataclass(frozen=True)
class ViewStatistics:
    """Mean and variance over the views that see a point; zeros where none does."""

    mean: Float[Tensor, "batch ray sample channel"]
    variance: Float[Tensor, "batch ray sample channel"]
    count: Float[Tensor, "batch ray sample"]
    """Number of views that see the point."""

    def similarity(self, groups: int) -> Float[Tensor, "batch ray sample group"]:
        """Return the mean dot product over all pairs of different views, per group of channels.

        The mean over all pairs is ``|mean|^2``; pairs of a view with itself have ``|mean|^2 +
        variance``. Zero where fewer than two views see the point.
        """
        square = self.mean.square().unflatten(-1, (groups, -1)).sum(-1)
        variance = self.variance.unflatten(-1, (groups, -1)).sum(-1)
        others = (self.count - 1).clamp_min(1)[..., None].to(square.dtype)
        return torch.where((self.count > 1)[..., None], square - variance / others, 0)


def sample_bundles(
    scene: SceneFeatures,
    rays: Rays,
    pixel_rays: Rays,
    t: Float[Tensor, "batch ray sample"],
    planes: DepthPlanes,
    pad: float = 0.0,
) -> SourceSamples:
    """Project the samples of bundles into every source view and read the views there.

    Features and depth are read at z-depths ``t`` along ``rays``, through the bundles' centres;
    colours at the same depths along ``pixel_rays``, ordered bundle by bundle. Points up to ``pad``
    pixels outside an image are valid and read its border.
    """
    projected = project_to_sources(scene, rays, t, pad)
    count = pixel_rays.origins.shape[1] // t.shape[1]
    of_pixels = project_to_sources(scene, pixel_rays, t.repeat_interleave(count, 1), pad)
    colors = read_maps(scene.images, of_pixels).unflatten(2, (-1, count))
    # Pixels outside the image get the colour of the bundle's centre, which may be inside.
    valid = of_pixels.valid.unflatten(2, (-1, count))[..., None]
    center = read_maps(scene.images, projected)[:, :, :, None]
    colors = torch.where(valid, colors, center)
    return SourceSamples(
        features=read_maps(scene.features, projected),
        colors=colors.mean(3),
        pixel_colors=rearrange(colors, "b v r p s c -> b v r s (p c)"),
        directions=relative_directions(rays, t, scene.cameras),
        depth=depth_residuals(scene.prior, projected, planes),
        valid=projected.valid,
    )


def project_to_sources(
    scene: SceneFeatures, rays: Rays, t: Float[Tensor, "batch ray sample"], pad: float
) -> ProjectedPoints:
    """Project ray points into every source view."""
    height, width = scene.size
    grid, depths = project_samples(rays, t, scene.cameras, scene.size)
    x, y = grid.unbind(-1)
    inside = (x.abs() <= 1 + 2 * pad / width) & (y.abs() <= 1 + 2 * pad / height)
    valid = inside & (depths > MIN_DEPTH)
    if scene.view_mask is not None:
        valid = valid & scene.view_mask[:, :, None, None]
    # Invalid points may project to huge coordinates; any finite position in range will do.
    return ProjectedPoints(torch.where(valid[..., None], grid, 0), depths, valid)


def project_samples(
    rays: Rays, t: Float[Tensor, "batch ray sample"], cameras: Cameras, size: tuple[int, int]
) -> tuple[Float[Tensor, "batch view ray sample 2"], Float[Tensor, "batch view ray sample"]]:
    """Return positions of ray points in images of cameras ``(batch, view)``, and z-depths there.

    Positions run from -1 to 1 across the image; at or behind the camera they are meaningless. Each
    ray is projected once: homogeneous image coordinates are linear in ``t``.
    """
    start = apply_matrix(cameras.intrinsics, to_camera(rays.origins[:, None], cameras))
    directions = apply_matrix(cameras.w2c[..., :3, :3], rays.directions[:, None])
    step = apply_matrix(cameras.intrinsics, directions)
    start, step = _to_grid(start, size), _to_grid(step, size)
    points = torch.addcmul(start[..., None, :], t[:, None, ..., None], step[..., None, :])
    depths = points[..., 2]
    return points[..., :2] / depths.clamp_min(MIN_DEPTH)[..., None], depths


def _to_grid(points: Float[Tensor, "*batch 3"], size: tuple[int, int]) -> Float[Tensor, "*batch 3"]:
    """Scale homogeneous pixels so that x and y run from -1 to 1 across the image."""
    x, y, depth = points.unbind(-1)
    return torch.stack([x * (2 / size[1]) - depth, y * (2 / size[0]) - depth, depth], -1)


def read_maps(
    maps: Float[Tensor, "batch view channel height width"], projected: ProjectedPoints
) -> Float[Tensor, "batch view ray sample channel"]:
    """Sample maps bilinearly; in single precision, but maps read by a kernel in autocast's."""
    if use_kernels(maps, maps.shape[2]):
        positions = projected.grid.flatten(0, 1).flatten(1, 2)
        read = read_bilinear(maps.flatten(0, 1), positions, working_dtype(maps))
        return read.view(*projected.grid.shape[:-1], -1)
    sampled = F.grid_sample(
        maps.flatten(0, 1).to(projected.grid.dtype),
        projected.grid.flatten(0, 1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return rearrange(sampled, "(b v) c r s -> b v r s c", b=len(maps))


def depth_residuals(
    prior: DepthPrior, projected: ProjectedPoints, planes: DepthPlanes
) -> DepthResiduals:
    """Compare points with the prior's surfaces. Neutral (0, 0, 1) where there is no prior."""
    depth, confidence = read_maps(prior.depth_and_confidence(), projected).unbind(-1)
    behind = planes.coordinates(projected.depths) - planes.coordinates(depth)
    behind = behind.clamp(-1, 1) * planes.count
    hidden = torch.sigmoid(2 * (behind - VISIBLE_BEHIND))
    return DepthResiduals(
        residuals=torch.where(confidence > 0, behind / (1 + behind.abs()), 0),
        confidence=confidence,
        visibility=1 - confidence * hidden,
    )


def relative_directions(
    rays: Rays, t: Float[Tensor, "batch ray sample"], cameras: Cameras
) -> Float[Tensor, "batch view ray sample 4"]:
    """Compare the directions from the target and from each source to each point.

    Seen from a source, the point is at ``offset + t * direction``. The result is therefore a
    combination of two vectors per ray, with two factors per sample.
    """
    offset = rays.origins[:, None] - cameras.centers[:, :, None]
    length = rays.directions.norm(dim=-1)[:, None, :, None]
    viewdirs = rays.viewdirs[:, None].expand_as(offset)
    along_ray = (offset * viewdirs).sum(-1, keepdim=True)
    travelled = t[:, None] * length
    squared_distance = travelled * (travelled + 2 * along_ray)
    squared_distance = squared_distance + offset.square().sum(-1, keepdim=True)
    inverse = squared_distance.clamp_min(1e-12).rsqrt()
    cosine = ((along_ray + travelled) * inverse).clamp(-1, 1)
    # Inverse length of the difference of the two unit vectors.
    scale = (2 - 2 * cosine).clamp_min(1e-10).rsqrt()
    own, other = (1 - travelled * inverse) * scale, inverse * scale
    difference = own[..., None] * viewdirs[..., None, :] - other[..., None] * offset[..., None, :]
    return torch.cat([difference.clamp(-1, 1), cosine[..., None]], -1)


def view_statistics(
    values: Float[Tensor, "batch view ray sample channel"],
    valid: Bool[Tensor, "batch view ray sample"],
) -> ViewStatistics:
    """Return mean and variance over the views that see each point, whatever their order."""
    count = valid.sum(1)
    share = (valid / count.clamp_min(1)[:, None]).to(values.dtype)[..., None]
    mean = weighted_sum(share, values)
    variance = weighted_sum(share, (values - mean[:, None]).square())
    return ViewStatistics(mean, variance, count.to(torch.float32))


def weighted_sum(
    weights: Float[Tensor, "batch view ray sample 1"],
    values: Float[Tensor, "batch view ray sample channel"],
) -> Float[Tensor, "batch ray sample channel"]:
    """Sum over the views in a loop: on a CPU, a reduction over few views is slow."""
    total = weights[:, 0] * values[:, 0]
    for view in range(1, values.shape[1]):
        total = torch.addcmul(total, weights[:, view], values[:, view])
    return total


def working_precision(values: Tensor) -> Tensor:
    """Convert to autocast's precision if it is on, with the memory layout of linear layers."""
    if torch.is_autocast_enabled(values.device.type):
        return values.to(working_dtype(values), memory_format=torch.contiguous_format)
    return values


def working_dtype(values: Tensor) -> torch.dtype:
    """Return autocast's type on the tensor's device if it is on, else the tensor's type."""
    device = values.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else values.dtype
