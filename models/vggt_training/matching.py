"""An auxiliary task that teaches cross-view correspondence early in training.

Which patches of two views show the same surface is known exactly from depth and cameras. Features
of corresponding patches are pulled together and all others of the same view pushed apart (InfoNCE,
van den Oord et al., 2018). The projections live here and not in the network, whose state stays
that of VGGT; they are thrown away after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from datasets.views import Views
from models.vggt_training.targets import pixel_centers
from utils.cameras import Cameras, project, unproject

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
    matching_tolerance: float = 0.03
    """relative depth difference up to which a surface point counts as seen by the other view"""

    def weight(self, step: int) -> float:
        """Return the weight at a step: full for the first half, then falling to zero."""
        if self.matching_until <= 0:
            return 0.0
        remaining = 2 * (1 - step / self.matching_until)
        return self.matching_weight * min(1.0, max(0.0, remaining))


@dataclass(frozen=True)
class MatchingResult:
    """The loss, and the share of patches that were matched right."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]


class MatchingHeads(nn.Module):
    """One projection per matched layer, and the loss."""

    def __init__(self, token_dim: int, config: MatchingConfig) -> None:
        super().__init__()
        self.layers = config.matching_layers
        self.temperature = config.matching_temperature
        self.projections = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(token_dim), nn.Linear(token_dim, config.matching_dim))
            for _ in config.matching_layers
        )

    def forward(
        self,
        layers: Sequence[Float[Tensor, "batch view patch channel"]],
        matches: Int[Tensor, "batch view patch"],
    ) -> MatchingResult:
        """Match each view's patches with those of the next view (the first follows the last).

        Args:
            layers: Patch tokens of the layers that the heads read.
            matches: As ``find_matches`` returns them.
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


@torch.no_grad()
def find_matches(views: Views, patch: int, tolerance: float) -> Int[Tensor, "batch view patch"]:
    """Return for each patch of a view the patch of the next view that shows the same surface.

    The surface point is the one under the patch's central pixel. ``NO_MATCH`` stands where it has
    no known depth, leaves the next view, or is hidden there: its depth differs from the next
    view's own by more than ``tolerance``, relatively.
    """
    height, width = views.size
    rows, columns = height // patch, width // patch
    middle = slice(patch // 2, None, patch)
    centers = pixel_centers(height, width, views.depths.device).unflatten(0, (height, width))
    depths = torch.where(views.masks, views.depths, 0.0)
    own = depths[..., middle, middle].flatten(2)
    points = unproject(centers[middle, middle].flatten(0, 1), own, views.cameras)
    following = Cameras(views.cameras.intrinsics.roll(-1, 1), views.cameras.c2w.roll(-1, 1))
    pixels, expected = project(points, following)
    size = pixels.new_tensor([width, height])
    inside = ((pixels >= 0) & (pixels < size)).all(-1) & (expected > 0)
    x, y = torch.where(inside[..., None], pixels, 0.0).long().unbind(-1)
    found = depths.roll(-1, 1).flatten(2).gather(2, y * width + x)
    seen = inside & (own > 0) & (found > 0) & ((found - expected).abs() < tolerance * expected)
    # Pixels beyond the last whole patch belong to none.
    seen &= (y < rows * patch) & (x < columns * patch)
    return torch.where(seen, (y // patch) * columns + x // patch, NO_MATCH)
