"""Supervision of attention between views: some heads are taught to attend to the matching patch.

Features that are alike in corresponding patches do not make a network use them: that takes heads
whose queries find those patches. Without supervision such heads are slow to emerge. The target of
each patch is known exactly, so the loss is the cross-entropy of a head's attention over all tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from models.vggt.aggregator import Aggregator
from models.vggt.attention import Attention, Rotations, rotate
from training.vggt.matching import NO_MATCH, MatchingResult, classify_matches, mean_result


class AttentionSupervision:
    """Computes the attention of the first heads of some blocks, from recorded inputs.

    The network's own attention never exists as a matrix; that of the supervised heads is computed
    again here, from the tokens that a forward hook has recorded.
    """

    def __init__(
        self, aggregator: Aggregator, blocks: Sequence[int] | None = None, heads: int = 1
    ) -> None:
        """Begin to record.

        Args:
            aggregator: Of the network in training; copies made later record too, so make none.
            blocks: Of attention between views; by default those a quarter and a half way through.
            heads: How many heads of each block are supervised.
        """
        depth = len(aggregator.global_blocks)
        self._heads = heads
        self._patch_start = aggregator.patch_start
        self._recorded: dict[Attention, tuple[Tensor, Rotations]] = {}
        for index in sorted({depth // 4, depth // 2}) if blocks is None else blocks:
            block: nn.Module = aggregator.global_blocks[index]
            block.attn.register_forward_pre_hook(self._record)  # pyright: ignore

    def loss(
        self, matches: Int[Tensor, "batch view patch"], others: Sequence[int]
    ) -> MatchingResult:
        """Compare the attention in the last forward pass with true correspondences.

        Args:
            matches: The patch of view ``others[v]`` that matches each patch of view v.
            others: One view for each view.
        """
        views, patches = matches.shape[1:]
        per_view = self._patch_start + patches
        offsets = matches.new_tensor(others)[:, None] * per_view + self._patch_start
        targets = torch.where(matches == NO_MATCH, NO_MATCH, matches + offsets)
        targets = targets[:, None].expand(-1, self._heads, -1, -1)
        results = []
        for attention, (tokens, rotations) in self._recorded.items():
            logits = attention_logits(attention, tokens, rotations, self._heads)
            logits = logits.unflatten(2, (views, per_view))[:, :, :, self._patch_start :]
            results.append(classify_matches(logits, targets))
        self.clear()
        return mean_result(results)

    def clear(self) -> None:
        """Drop what was recorded, in steps without this loss."""
        self._recorded.clear()

    def _record(self, attention: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(attention, Attention)
        tokens, rotations = arguments
        self._recorded[attention] = (tokens, rotations)


def attention_logits(
    attention: Attention,
    tokens: Float[Tensor, "batch token channel"],
    rotations: Rotations,
    heads: int,
) -> Float[Tensor, "batch head token token"]:
    """Return the scaled products of queries and keys of the first heads."""
    channels = tokens.shape[-1]
    per_head = channels // attention.heads
    rows = torch.arange(heads * per_head, device=tokens.device)
    rows = torch.cat([rows, rows + channels])
    projected = functional.linear(
        tokens.float(), attention.qkv.weight[rows], attention.qkv.bias[rows]
    )
    queries, keys = projected.unflatten(-1, (2, heads, per_head)).permute(2, 0, 3, 1, 4).unbind(0)
    queries = rotate(attention.q_norm(queries), rotations)
    keys = rotate(attention.k_norm(keys), rotations)
    return queries @ keys.transpose(-1, -2) / per_head**0.5
