"""The scale factor from the backbone's unit of depth to the unit of the given cameras.

The score of a scale is the sum of two terms. First, the ratio of given to predicted distances
between camera centres. Second, multi-view consistency: a pixel lifted by its scaled depth and the
*given* cameras should have the same scaled depth and the same texture in another view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from utils.cameras import Cameras, cell_grid, reproject, view_grid

COARSE_CANDIDATES = 64
FINE_CANDIDATES = 17
FINE_REACH = 1.5
"""Half width of each refinement, in steps of the previous candidates."""
QUERY_SIDE, MAP_SIDE = 24, 96
"""Longer side of the grid of lifted pixels, and of the maps that they are compared with."""
MAX_POINTS = 2**18
"""Maximum points times views compared at once, if these are at least 8 candidates."""
MIN_TOLERANCE = 0.03
"""Minimum tolerance of the relative depth difference between two views."""
CENTER_BONUS, CENTER_TOLERANCE = 0.1, 0.05
"""Score of a perfect fit of the camera centres, and the relative width of its peak."""
DISTINCT = 0.1
"""Lead of the best score over the mean score that gives full reliability."""

PairValues = Float[Tensor, "batch view other candidate query"]


@dataclass(frozen=True)
class PredictedGeometry:
    """The backbone's prediction for the views, in its own unit. All values are finite."""

    depth: Float[Tensor, "batch view rows columns"]
    """Positive z-depth."""
    confidence: Float[Tensor, "batch view rows columns"]
    """In [0, 1]."""
    centers: Float[Tensor, "batch view 3"]
    """Camera centres."""
    view_mask: Bool[Tensor, "batch view"]
    """Views that exist; predictions for others are ignored."""


@dataclass(frozen=True)
class _Evidence:
    """Pixels to lift, and the maps that they are compared with."""

    pixels: Float[Tensor, "query 2"]
    depth: Float[Tensor, "batch view query"]
    descriptors: Float[Tensor, "batch view query descriptor"]
    weights: Float[Tensor, "batch view query"]
    maps: Float[Tensor, "batch view channel map_rows map_columns"]
    """Logarithm of the depth, then the descriptors."""
    cameras: Cameras
    size: tuple[int, int]
    view_mask: Bool[Tensor, "batch view"]


def fit_scale(
    geometry: PredictedGeometry,
    images: Float[Tensor, "batch view 3 height width"],
    cameras: Cameras,
    near_far: Float[Tensor, "batch 2"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Search the scale (given per predicted unit) that brings the median depth into the range.

    Returns the scale and its reliability in [0, 1], 0 for a single view. Not differentiable; does
    not synchronise with the device.
    """
    evidence = _gather_evidence(geometry, images, cameras)
    from_centers, quality = center_scale(geometry.centers, cameras.centers, geometry.view_mask)
    exists = geometry.view_mask[:, :, None, None].expand_as(geometry.depth)
    median = _weighted_median(geometry.depth.flatten(1), exists.flatten(1).float())
    # Logarithms of scales, with a margin around near and far.
    low, high = (near_far[:, 0] * 0.8 / median).log(), (near_far[:, 1] * 1.25 / median).log()
    anchor = from_centers.log().clamp(low, high)
    steps = torch.linspace(0, 1, COARSE_CANDIDATES, device=low.device)
    candidates = torch.cat([low[:, None] + steps * (high - low)[:, None], anchor[:, None]], 1)
    step = (high - low) / (COARSE_CANDIDATES - 1)

    def score(logs: Tensor, step: Tensor) -> Tensor:
        bonus = torch.exp(-((logs - anchor[:, None]) / CENTER_TOLERANCE).square() / 2)
        return _consistency(evidence, logs, step) + CENTER_BONUS * quality[:, None] * bonus

    scores = score(candidates, step)
    best = _best(candidates, scores)
    offsets = torch.linspace(-FINE_REACH, FINE_REACH, FINE_CANDIDATES, device=low.device)
    for _ in range(2):
        candidates = best[:, None] + offsets * step[:, None]
        step = step * (2 * FINE_REACH / (FINE_CANDIDATES - 1))
        best = _best(candidates, score(candidates, step))
    peak = score(best[:, None], step)[:, 0]
    lead = ((peak - scores.mean(1)) / DISTINCT).clamp(0, 1)
    return best.exp(), lead * _agreeing_share(evidence, best)


def center_scale(
    predicted: Float[Tensor, "batch view 3"],
    given: Float[Tensor, "batch view 3"],
    view_mask: Bool[Tensor, "batch view"],
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Return the median ratio of given to predicted distances between centres, and its quality.

    Quality is in [0, 1]: low if the ratios scatter or are few; 0, with a ratio of 1, if all centres
    coincide.
    """
    count = given.shape[1]
    if count < 2:
        return given.new_ones(len(given)), given.new_zeros(len(given))
    first, second = torch.triu_indices(count, count, 1, device=given.device)
    both = view_mask[:, first] & view_mask[:, second]
    given_length, predicted_length = (
        (centers[:, first] - centers[:, second]).norm(dim=-1) * both
        for centers in (given, predicted)
    )
    usable = (given_length > 1e-3 * given_length.amax(1, keepdim=True)) & (
        predicted_length > 1e-3 * predicted_length.amax(1, keepdim=True)
    )
    weights = given_length * usable
    ratios = given_length.clamp_min(1e-12).log() - predicted_length.clamp_min(1e-12).log()
    median = _weighted_median(ratios, weights)
    spread = _weighted_median((ratios - median[:, None]).abs(), weights)
    pairs = usable.sum(1)
    quality = torch.exp(-spread / 0.1) * pairs / (pairs + 1)
    return torch.where(pairs > 0, median.exp(), 1), quality


def _gather_evidence(
    geometry: PredictedGeometry,
    images: Float[Tensor, "batch view 3 height width"],
    cameras: Cameras,
) -> _Evidence:
    size = (images.shape[-2], images.shape[-1])
    map_size = _fit_side(size, MAP_SIDE)
    depth = F.interpolate(geometry.depth, map_size, mode="nearest-exact")
    descriptors = patch_descriptors(F.interpolate(images.float().mean(2), map_size, mode="area"))
    maps = torch.cat([depth.log()[:, :, None], descriptors], 2)
    pixels = cell_grid(_fit_side(size, QUERY_SIDE), size, depth.device)
    grid = view_grid(pixels, size).expand(maps.shape[0] * maps.shape[1], 1, -1, -1)
    weights = geometry.confidence.flatten(0, 1)[:, None]
    with_weights = F.interpolate(weights, maps.shape[-2:], mode="nearest-exact")
    read = F.grid_sample(
        torch.cat([maps.flatten(0, 1), with_weights], 1), grid, "nearest", "border", False
    )
    read = rearrange(read, "(b v) c 1 q -> b v q c", b=len(maps))
    return _Evidence(
        pixels=pixels,
        depth=read[..., 0].exp(),
        descriptors=read[..., 1:-1],
        weights=(read[..., -1] + 1e-3) * geometry.view_mask[..., None],
        maps=maps,
        cameras=cameras,
        size=size,
        view_mask=geometry.view_mask,
    )


def patch_descriptors(
    grey: Float[Tensor, "batch view rows columns"],
) -> Float[Tensor, "batch view descriptor rows columns"]:
    """Describe each pixel by two normalised 3x3 patches, the second dilated to 5x5.

    Descriptors have unit length, less where there is little texture: their dot products are
    normalised cross correlations.
    """
    flat = grey.flatten(0, 1)[:, None]
    patches = []
    for dilation in (1, 2):
        padded = F.pad(flat, (dilation,) * 4, mode="replicate")
        patch = F.unfold(padded, 3, dilation=dilation).unflatten(2, grey.shape[-2:])
        patch = patch - patch.mean(1, keepdim=True)
        patches.append(patch / (patch.square().sum(1, keepdim=True) + 2e-3).sqrt())
    return (torch.cat(patches, 1) / 2**0.5).unflatten(0, grey.shape[:2])


def _compare(
    evidence: _Evidence, logs: Float[Tensor, "batch candidate"]
) -> tuple[PairValues, PairValues, PairValues]:
    """Compare lifted pixels of every view with every other view, at each logarithm of a scale.

    Returns the logarithm of (depth in the other view / the other view's own depth), the correlation
    of the textures, and weights, 0 where the pixel is outside the other view.
    """
    depth = rearrange(
        evidence.depth[:, :, None] * logs.exp()[:, None, :, None], "b v k q -> b v (k q)"
    )
    pixels = evidence.pixels.repeat(logs.shape[1], 1)
    lifted = reproject(pixels, depth, evidence.cameras, evidence.size, evidence.view_mask)
    shape = {"b": len(logs), "k": logs.shape[1]}
    read = F.grid_sample(
        evidence.maps.flatten(0, 1),
        rearrange(lifted.grid, "b v o p c -> (b o) v p c"),
        align_corners=False,
    )
    read = rearrange(read, "(b o) c v (k q) -> b v o k q c", **shape)
    logs_of_z = rearrange(lifted.depths.clamp_min(1e-6).log(), "b v o (k q) -> b v o k q", **shape)
    weights = evidence.weights[:, :, None, None] * rearrange(
        lifted.seen, "b v o (k q) -> b v o k q", **shape
    )
    residual = logs_of_z - logs[:, None, None, :, None] - read[..., 0]
    correlation = (read[..., 1:] * evidence.descriptors[:, :, None, None]).sum(-1)
    return residual, correlation, weights


def _consistency(
    evidence: _Evidence, logs: Float[Tensor, "batch candidate"], step: Float[Tensor, " batch"]
) -> Float[Tensor, "batch candidate"]:
    """Score each scale by the agreement of depths and textures over all pairs of views."""
    tolerance = step.clamp_min(MIN_TOLERANCE)[:, None, None, None, None]
    # Sum of the weights if every pixel were inside every other view.
    total = evidence.weights.sum((1, 2)) * (evidence.view_mask.sum(1) - 1)
    scores = []
    # Bound the memory.
    step_size = max(8, MAX_POINTS // (evidence.depth.numel() * evidence.depth.shape[1]))
    for chunk in logs.split(step_size, dim=1):
        residual, correlation, weights = _compare(evidence, chunk)
        agreement = 1 / (1 + (residual / tolerance).square())
        gain = (weights * (agreement + correlation) / 2).sum((1, 2, 4))
        # The constant keeps scales at which few pixels overlap from a high score.
        overlap = weights.sum((1, 2, 4)) + 0.2 * total[:, None]
        scores.append(gain / overlap.clamp_min(1e-6))
    return torch.cat(scores, 1)


def _agreeing_share(evidence: _Evidence, log: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return the weighted share of lifted pixels whose depth the other views confirm."""
    residual, _, weights = _compare(evidence, log[:, None])
    agreement = torch.exp(-(residual / (2 * MIN_TOLERANCE)).square())
    return (weights * agreement).sum((1, 2, 3, 4)) / weights.sum((1, 2, 3, 4)).clamp_min(1e-6)


def _best(
    candidates: Float[Tensor, "batch candidate"], scores: Float[Tensor, "batch candidate"]
) -> Float[Tensor, " batch"]:
    return candidates.gather(1, scores.argmax(1, keepdim=True))[:, 0]


def _weighted_median(
    values: Float[Tensor, "batch value"], weights: Float[Tensor, "batch value"]
) -> Float[Tensor, " batch"]:
    ordered, order = values.sort(1)
    cumulative = weights.gather(1, order).cumsum(1)
    reached = (cumulative >= cumulative[:, -1:] / 2).to(torch.int8)
    return ordered.gather(1, reached.argmax(1, keepdim=True))[:, 0]


def _fit_side(size: tuple[int, int], side: int) -> tuple[int, int]:
    factor = min(1.0, side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
