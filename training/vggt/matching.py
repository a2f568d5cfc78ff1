"""Auxiliary losses that teach correspondence between views early in training.

True correspondences of patches follow from depth and cameras. Features of corresponding patches are
pulled together (InfoNCE, van den Oord et al., 2018), some attention heads are trained to attend to
the corresponding patch, and patch tokens predict the shift of their surface in the reference view.
The parameters of these losses are dropped after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from datasets.views import Views
from models.vggt.aggregator import Aggregator
from models.vggt.attention import Attention, Rotations, rotate
from utils.cameras import pixel_grid, project, unproject

NO_MATCH = -1
FEATURE_DIM = 64
"""Channels of the matched features."""
FEATURE_LAYERS = (0, 1)
"""Indices of the matched layers among the four that the heads read."""
SHIFT_LAYERS = (1, 2)
"""Indices of the layers that predict shifts."""
TEMPERATURE = 0.07
"""Divisor of the cosine similarities."""
TOLERANCE = 0.03
"""Relative depth difference up to which a surface point counts as visible in the other view."""


@dataclass(frozen=True)
class MatchingResult:
    """A loss, and the share of correctly matched patches."""

    loss: Float[Tensor, ""]
    accuracy: Float[Tensor, ""]


@dataclass(frozen=True)
class Matches:
    """For each patch of a view, where its surface is seen in another view."""

    patches: Int[Tensor, "batch view patch"]
    """Index of the patch in the other view, or ``NO_MATCH``."""
    shifts: Float[Tensor, "batch view patch 2"]
    """Displacement to the right and down, in patches; 0 without a match."""


class MatchingHeads(nn.Module):
    """Projections of patch tokens for the feature and shift losses."""

    def __init__(self, token_dim: int) -> None:
        super().__init__()
        self.projections = _projections(token_dim, FEATURE_DIM, len(FEATURE_LAYERS))
        self.shift_projections = _projections(token_dim, 2, len(SHIFT_LAYERS))

    def feature_loss(
        self,
        layers: Sequence[Float[Tensor, "batch view patch channel"]],
        matches: Int[Tensor, "batch view patch"],
    ) -> MatchingResult:
        """Return the InfoNCE loss of each view's patches with those of the next view.

        ``layers`` are the patch tokens of the layers that the heads read.
        """
        results = []
        for index, projection in zip(FEATURE_LAYERS, self.projections, strict=True):
            features = functional.normalize(projection(layers[index]).float(), dim=-1)
            similarities = features @ features.roll(-1, dims=1).transpose(-1, -2)
            results.append(classify_matches((similarities / TEMPERATURE).float(), matches))
        return mean_result(results)

    def shift_loss(
        self, layers: Sequence[Float[Tensor, "batch view patch channel"]], matches: Matches
    ) -> Float[Tensor, ""]:
        """Return the Huber loss, in patches, of the shifts that patch tokens predict."""
        matched = (matches.patches != NO_MATCH)[..., None]
        total = matches.shifts.new_zeros(())
        for index, projection in zip(SHIFT_LAYERS, self.shift_projections, strict=True):
            predicted = projection(layers[index]).float()
            errors = functional.smooth_l1_loss(
                predicted, matches.shifts, reduction="none", beta=0.5
            )
            total = total + (errors * matched).sum() / matched.sum().clamp_min(1)
        return total / len(SHIFT_LAYERS)


class AttentionSupervision:
    """Cross-entropy of the first head's attention in two blocks of attention between views.

    The attention is recomputed from recorded tokens. Without supervision, heads whose queries find
    the matching patch emerge slowly.
    """

    def __init__(self, aggregator: Aggregator) -> None:
        """Record in the blocks a quarter and a half through the network.

        Copies of the aggregator would record, too: make them before.
        """
        depth = len(aggregator.global_blocks)
        self._patch_start = aggregator.patch_start
        self._recorded: dict[Attention, tuple[Tensor, Rotations]] = {}
        for index in sorted({depth // 4, depth // 2}):
            block: nn.Module = aggregator.global_blocks[index]
            block.attn.register_forward_pre_hook(self._record)  # pyright: ignore

    def loss(
        self, matches: Int[Tensor, "batch view patch"], others: Sequence[int]
    ) -> MatchingResult:
        """Compare the attention in the last forward pass with ``find_matches`` for ``others``."""
        views, patches = matches.shape[1:]
        per_view = self._patch_start + patches
        offsets = matches.new_tensor(others)[:, None] * per_view + self._patch_start
        targets = torch.where(matches == NO_MATCH, NO_MATCH, matches + offsets)
        results = []
        for attention, (tokens, rotations) in self._recorded.items():
            logits = attention_logits(attention, tokens, rotations)
            logits = logits.unflatten(1, (views, per_view))[:, :, self._patch_start :]
            results.append(classify_matches(logits, targets))
        self.clear()
        return mean_result(results)

    def clear(self) -> None:
        """Drop the recorded tokens, in steps without this loss."""
        self._recorded.clear()

    def _record(self, attention: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(attention, Attention)
        tokens, rotations = arguments
        self._recorded[attention] = (tokens, rotations)


def attention_logits(
    attention: Attention, tokens: Float[Tensor, "batch token channel"], rotations: Rotations
) -> Float[Tensor, "batch token token"]:
    """Return the scaled products of queries and keys of the first head."""
    channels = tokens.shape[-1]
    per_head = channels // attention.heads
    rows = torch.arange(per_head, device=tokens.device)
    rows = torch.cat([rows, rows + channels])
    weight, bias = attention.qkv.weight[rows], attention.qkv.bias[rows]
    projected = functional.linear(tokens.float(), weight, bias)
    queries, keys = projected[:, None].chunk(2, -1)
    queries = rotate(attention.q_norm(queries), rotations)
    keys = rotate(attention.k_norm(keys), rotations)
    return (queries @ keys.transpose(-1, -2) / per_head**0.5)[:, 0]


def classify_matches(
    logits: Float[Tensor, "*batch query key"], targets: Int[Tensor, "*batch query"]
) -> MatchingResult:
    """Return cross-entropy and accuracy over the queries that have a match; 0 if none has."""
    matched = targets != NO_MATCH
    count = matched.sum().clamp_min(1)
    entropies = functional.cross_entropy(
        logits.flatten(0, -2), targets.flatten(), ignore_index=NO_MATCH, reduction="sum"
    )
    right = (logits.argmax(-1) == targets) & matched
    return MatchingResult(entropies / count, right.sum() / count)


def mean_result(results: Sequence[MatchingResult]) -> MatchingResult:
    """Return the mean loss and accuracy."""
    losses = torch.stack([result.loss for result in results])
    return MatchingResult(losses.mean(), torch.stack([r.accuracy for r in results]).mean())


@torch.no_grad()
def find_matches(views: Views, others: Sequence[int], patch: int) -> Matches:
    """Return for each patch of view ``v`` its match in view ``others[v]``.

    The surface point at the patch's central pixel is projected. There is no match if its depth is
    unknown, or if it is outside the other view or occluded there.
    """
    height, width = views.size
    rows, columns = height // patch, width // patch
    central = slice(patch // 2, None, patch)
    grid = pixel_grid(height, width, views.depths.device).unflatten(0, (height, width))
    centers = grid[central, central].flatten(0, 1)
    depths = torch.where(views.masks, views.depths, 0.0)
    own_depth = depths[..., central, central].flatten(2)
    points = unproject(centers, own_depth, views.cameras)
    pixels, z = project(points, views.cameras[:, list(others)])
    size = pixels.new_tensor([width, height])
    inside = ((pixels >= 0) & (pixels < size)).all(-1) & (z > 0)
    x, y = torch.where(inside[..., None], pixels, 0.0).long().unbind(-1)
    other_depth = depths[:, others].flatten(2).gather(2, y * width + x)
    visible = (other_depth > 0) & ((other_depth - z).abs() < TOLERANCE * z)
    matched = inside & (own_depth > 0) & visible
    # Pixels beyond the last complete patch belong to no patch.
    matched &= (y < rows * patch) & (x < columns * patch)
    return Matches(
        torch.where(matched, (y // patch) * columns + x // patch, NO_MATCH),
        torch.where(matched[..., None], (pixels - centers) / patch, 0.0),
    )


def next_views(count: int) -> list[int]:
    """Return for each view the index of the next, cyclically."""
    return [(view + 1) % count for view in range(count)]


def reference_views(count: int) -> list[int]:
    """Return for each view the index of the first, the reference; for the first, the second."""
    return [1 % count, *(0 for _ in range(count - 1))]


def loss_weight(step: int, until: int) -> float:
    """Return the weight of the matching losses: 1 until ``until / 2``, then linearly to 0."""
    return 0.0 if until <= 0 else min(1.0, max(0.0, 2 * (1 - step / until)))


def _projections(inputs: int, outputs: int, count: int) -> nn.ModuleList:
    return nn.ModuleList(
        nn.Sequential(nn.LayerNorm(inputs), nn.Linear(inputs, outputs)) for _ in range(count)
    )
