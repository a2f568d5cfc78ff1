"""Projection of ray points into the source views, and what the views show there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from models.depth_prior import DepthPrior
from models.ray_sampling import DepthPlanes
from utils.cameras import Cameras, Rays, apply_matrix, to_camera

MIN_DEPTH = 1e-6
"""Points nearer than this to a camera's plane, or behind it, are not seen."""
VISIBLE_BEHIND = 1.0
"""Planes behind a view's surface up to which a point still counts as visible from there."""


@dataclass(frozen=True)
class SceneFeatures:
    """A set of source views, encoded. All that rendering needs. Maps cover the whole image."""

    images: Float[Tensor, "batch view 3 height width"]
    features: Float[Tensor, "batch view channel map_height map_width"]
    """For ray samples."""
    coarse_features: Float[Tensor, "batch view coarse_channel coarse_height coarse_width"]
    """For the cost volume."""
    cameras: Cameras
    prior: DepthPrior
    view_mask: Bool[Tensor, "batch view"] | None = None
    """Views that exist; all unless given."""


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
    """Ray points against the depth prior of each view, along that view's line of sight."""

    residuals: Float[Tensor, "batch view ray sample"]
    """Distance behind the prior's surface in plane spacings, squashed to (-1, 1)."""
    confidence: Float[Tensor, "batch view ray sample"]
    """In [0, 1]; 0 without a prior."""
    visibility: Float[Tensor, "batch view ray sample"]
    """From 1 in front of a confident surface to 0 behind it."""


@dataclass(frozen=True)
class SourceSamples:
    """What each view shows at the samples of bundles.

    Entries of invalid views are finite but meaningless.
    """

    features: Float[Tensor, "batch view ray sample channel"]
    colors: Float[Tensor, "batch view ray sample 3"]
    """Means over the pixels of the bundle."""
    pixel_colors: Float[Tensor, "batch view ray sample values"]
    """Colours at each pixel of the bundle, one after the other."""
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
    """Views that see the point."""

    def similarity(self, groups: int) -> Float[Tensor, "batch ray sample group"]:
        """Return the mean product of all pairs of different views, for groups of channels.

        It follows from the other statistics: the mean over all pairs is ``|mean|^2``, and pairs
        of a view with itself have ``|mean|^2 + variance``. Zero where fewer than two views see
        the point. Of unit vectors this is their cosine.
        """
        square = self.mean.square().unflatten(-1, (groups, -1)).sum(-1)
        variance = self.variance.unflatten(-1, (groups, -1)).sum(-1)
        others = (self.count - 1).clamp_min(1)[..., None].to(square.dtype)
        several = (self.count > 1)[..., None]
        return torch.where(several, square - variance / others, 0)


def sample_bundles(
    scene: SceneFeatures,
    rays: Rays,
    pixel_rays: Rays,
    t: Float[Tensor, "batch ray sample"],
    planes: DepthPlanes,
    pad: float = 0.0,
) -> SourceSamples:
    """Project the samples of bundles into every source view and read what it shows there.

    ``rays`` are those of the bundles' middles: features and depth are read at their points. Colours
    are read for every pixel: ``pixel_rays`` are the rays of the pixels, bundle by bundle, and their
    points lie at the same depth. Points up to ``pad`` pixels outside an image still count as seen;
    they read its border.
    """
    projected = project_to_sources(scene, rays, t, pad)
    count = pixel_rays.origins.shape[1] // t.shape[1]
    each = project_to_sources(scene, pixel_rays, t.repeat_interleave(count, 1), pad)
    # A bundle that is seen may have a pixel that is not: it gets the middle's colour.
    colors = read_maps(scene.images, each).unflatten(2, (-1, count))
    known = each.valid.unflatten(2, (-1, count))[..., None]
    middle = read_maps(scene.images, projected)[:, :, :, None]
    colors = torch.where(known, colors, middle)
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
    height, width = scene.images.shape[-2:]
    grid, depths = project_samples(rays, t, scene.cameras, (height, width))
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
    """Return where ray points lie in images of cameras ``(batch, view)``, and their z-depths there.

    Positions run from -1 to 1 across the image; at or behind the camera they mean nothing. A ray is
    projected once, its points by a step along its image: ``numerator / depth``, both linear in t.
    """
    start, step = _project_rays(rays, cameras, size)
    along = t[:, None, ..., None]
    # Rows of the product: x and y (from -1 to 1 across the image) times the depth, and the depth.
    points = torch.addcmul(start[..., None, :], along, step[..., None, :])
    depths = points[..., 2]
    return points[..., :2] / depths.clamp_min(MIN_DEPTH)[..., None], depths


def read_maps(
    maps: Float[Tensor, "batch view channel height width"], projected: ProjectedPoints
) -> Float[Tensor, "batch view ray sample channel"]:
    """Read maps bilinearly, in the precision of the positions: half precision would move them."""
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
    """Compare the direction from which the target sees each point with each source's.

    From a source the point lies at ``offset + t * direction``, so that each sample takes two
    factors of the ray's own vectors.
    """
    offset = rays.origins[:, None] - cameras.centers[:, :, None]
    length = rays.directions.norm(dim=-1)[:, None, :, None]
    viewdirs = rays.viewdirs[:, None].expand_as(offset)
    ahead = (offset * viewdirs).sum(-1, keepdim=True)
    travelled = t[:, None] * length
    distance = travelled * (travelled + 2 * ahead) + offset.square().sum(-1, keepdim=True)
    inverse = distance.clamp_min(1e-12).rsqrt()
    cosine = ((ahead + travelled) * inverse).clamp(-1, 1)
    # The difference of two unit vectors is as long as this.
    scale = (2 - 2 * cosine).clamp_min(1e-10).rsqrt()
    own, other = (1 - travelled * inverse) * scale, inverse * scale
    difference = own[..., None] * viewdirs[..., None, :] - other[..., None] * offset[..., None, :]
    return torch.cat([difference.clamp(-1, 1), cosine[..., None]], -1)


def view_statistics(
    values: Float[Tensor, "batch view ray sample channel"],
    valid: Bool[Tensor, "batch view ray sample"],
) -> ViewStatistics:
    """Average over the views that see each point, however many there are, in any order."""
    count = valid.sum(1)
    share = (valid / count.clamp_min(1)[:, None]).to(values.dtype)[..., None]
    mean = weighted_sum(share, values)
    variance = weighted_sum(share, (values - mean[:, None]).square())
    return ViewStatistics(mean, variance, count.to(torch.float32))


def weighted_sum(
    weights: Float[Tensor, "batch view ray sample 1"],
    values: Float[Tensor, "batch view ray sample channel"],
) -> Float[Tensor, "batch ray sample channel"]:
    """Sum over the views one after the other: few views make a slow reduction on a CPU."""
    total = weights[:, 0] * values[:, 0]
    for view in range(1, values.shape[1]):
        total = torch.addcmul(total, weights[:, view], values[:, view])
    return total


def working_precision(values: Tensor) -> Tensor:
    """Convert to autocast's precision, if it is on, and to the layout of linear layers."""
    device = values.device.type
    if torch.is_autocast_enabled(device):
        return values.to(torch.get_autocast_dtype(device), memory_format=torch.contiguous_format)
    return values


def _project_rays(
    rays: Rays, cameras: Cameras, size: tuple[int, int]
) -> tuple[Float[Tensor, "batch view ray 3"], Float[Tensor, "batch view ray 3"]]:
    """Return origin and direction of each ray in each view, in homogeneous image coordinates."""
    start = apply_matrix(cameras.intrinsics, to_camera(rays.origins[:, None], cameras))
    directions = apply_matrix(cameras.w2c[..., :3, :3], rays.directions[:, None])
    step = apply_matrix(cameras.intrinsics, directions)
    return _to_grid(start, size), _to_grid(step, size)


def _to_grid(points: Float[Tensor, "*batch 3"], size: tuple[int, int]) -> Float[Tensor, "*batch 3"]:
    """Scale homogeneous pixels so that x and y run from -1 to 1 across the image."""
    x, y, depth = points.unbind(-1)
    return torch.stack([x * (2 / size[1]) - depth, y * (2 / size[0]) - depth, depth], -1)
