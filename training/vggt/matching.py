"""Auxiliary tasks that teach cross-view correspondence early in training.

Which patches of two views show the same surface is known exactly from depth and cameras. Three
losses build on each other: features of corresponding patches are pulled together and all others of
the same view pushed apart (InfoNCE, van den Oord et al., 2018); ``attention.py`` teaches heads to
look where like features are; and patches have to tell where in the frame of reference they are
seen, which makes what the heads find useful. From such shifts, cameras follow. What is learnt here
beside the network is thrown away after training; the network's state stays that of VGGT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from datasets.views import Views
from utils.cameras import Cameras, project, unproject
from utils.rays import pixel_grid

NO_MATCH = -1


@dataclass(frozen=True)
class MatchingConfig:
    """The auxiliary matching loss."""

    matching_weight: float = 1.0
    """weight of the matching loss at the start"""
    matching_until: int = 20_000
    """step at which the matching loss has faded out; 0: no matching loss"""
    matching_dim: int = 64
    """channels of the matched features"""
    matching_layers: tuple[int, ...] = (0, 1)
    """which of the four layers that the heads read are matched"""
    matching_temperature: float = 0.07
    """scale of the cosine similarities"""
    attention_weight: float = 1.0
    """weight of the attention loss, which fades out like the matching loss"""
    attention_blocks: tuple[int, ...] = (2, 4)
    """blocks of attention between views in which heads are taught to look at corresponding
    patches"""
    attention_heads: int = 1
    """how many heads of each such block are taught"""
    shift_weight: float = 1.0
    """weight of the loss on shifts, which fades out likewise"""
    shift_layers: tuple[int, ...] = (1, 2)
    """which of the four layers that the heads read tell shifts"""
    matching_tolerance: float = 0.03
    """relative depth difference up to which a surface point counts as seen by the other view"""

    def presence(self, step: int) -> float:
        """Return how much the losses count at a step: fully for the first half, then less."""
        if self.matching_until <= 0:
            return 0.0
        return min(1.0, max(0.0, 2 * (1 - step / self.matching_until)))


@dataclass(frozen=True)
class MatchingResult:
    """A loss, and the share of patches that were matched right."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]


@dataclass(frozen=True)
class Matches:
    """Where the surface in each patch of a view is seen in another view."""

    patches: Int[Tensor, "batch view patch"]
    """The patch of the other view, or ``NO_MATCH``."""
    shifts: Float[Tensor, "batch view patch 2"]
    """How far to the right and down the surface is seen there, in patches; 0 without a match."""


class MatchingHeads(nn.Module):
    """Projections of patch tokens, and the losses on them."""

    def __init__(self, token_dim: int, config: MatchingConfig) -> None:
        super().__init__()
        self.layers, self.shift_layers = config.matching_layers, config.shift_layers
        self.temperature = config.matching_temperature
        self.projections = _projections(token_dim, config.matching_dim, len(self.layers))
        self.shift_projections = _projections(token_dim, 2, len(self.shift_layers))

    def match(
        self,
        layers: Sequence[Float[Tensor, "batch view patch channel"]],
        matches: Int[Tensor, "batch view patch"],
    ) -> MatchingResult:
        """Match each view's patches with those of the next view (the first follows the last).

        Args:
            layers: Patch tokens of the layers that the heads read.
            matches: As ``find_matches`` returns them for ``next_views``.
        """
        losses, accuracies = [], []
        matched = matches != NO_MATCH
        count = matched.sum().clamp_min(1)
        for index, projection in zip(self.layers, self.projections, strict=True):
            features = functional.normalize(projection(layers[index]).float(), dim=-1)
            similarities = features @ features.roll(-1, dims=1).transpose(-1, -2)
            logits = (similarities / self.temperature).float()
            entropies = functional.cross_entropy(
                logits.flatten(0, 2), matches.flatten(), ignore_index=NO_MATCH, reduction="sum"
            )
            losses.append(entropies / count)
            accuracies.append(((logits.argmax(-1) == matches) & matched).sum() / count)
        return MatchingResult(torch.stack(losses).mean(), torch.stack(accuracies).mean())

    def tell_shifts(
        self, layers: Sequence[Float[Tensor, "batch view patch channel"]], matches: Matches
    ) -> Float[Tensor, ""]:
        """Return the Huber loss, in patches, of the shifts that patch tokens tell."""
        matched = (matches.patches != NO_MATCH)[..., None]
        total = matches.shifts.new_zeros(())
        for index, projection in zip(self.shift_layers, self.shift_projections, strict=True):
            told = projection(layers[index]).float()
            errors = functional.smooth_l1_loss(told, matches.shifts, reduction="none", beta=0.5)
            total = total + (errors * matched).sum() / matched.sum().clamp_min(1)
        return total / len(self.shift_layers)


def _projections(inputs: int, outputs: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, outputs)) for _ in range(count)
    )


@torch.no_grad()
def find_matches(views: Views, others: Sequence[int], patch: int, tolerance: float) -> Matches:
    """Find for each patch of view v where view ``others[v]`` shows the same surface.

    The surface point is the one under the patch's central pixel. ``NO_MATCH`` stands where it has
    no known depth, leaves the other view, or is hidden there: its depth differs from the other
    view's own by more than ``tolerance``, relatively.
    """
    height, width = views.size
    rows, columns = height // patch, width // patch
    middle = slice(patch // 2, None, patch)
    centers = pixel_grid(height, width, views.depths.device).unflatten(0, (height, width))
    depths = torch.where(views.masks, views.depths, 0.0)
    own = depths[..., middle, middle].flatten(2)
    points = unproject(centers[middle, middle].flatten(0, 1), own, views.cameras)
    cameras = views.cameras
    there = Cameras(cameras.intrinsics[:, others], cameras.c2w[:, others])
    pixels, expected = project(points, there)
    size = pixels.new_tensor([width, height])
    inside = ((pixels >= 0) & (pixels < size)).all(-1) & (expected > 0)
    x, y = torch.where(inside[..., None], pixels, 0.0).long().unbind(-1)
    found = depths[:, others].flatten(2).gather(2, y * width + x)
    seen = inside & (own > 0) & (found > 0) & ((found - expected).abs() < tolerance * expected)
    # Pixels beyond the last whole patch belong to none.
    seen &= (y < rows * patch) & (x < columns * patch)
    shifts = (pixels - centers[middle, middle].flatten(0, 1)) / patch
    return Matches(
        torch.where(seen, (y // patch) * columns + x // patch, NO_MATCH),
        torch.where(seen[..., None], shifts, 0.0),
    )


def next_views(count: int) -> list[int]:
    """Return for each view the next; the first follows the last."""
    return [(view + 1) % count for view in range(count)]


def reference_views(count: int) -> list[int]:
    """Return for each view the frame of reference, the first; for that one, the second."""
    return [1 % count, *(0 for _ in range(count - 1))]
