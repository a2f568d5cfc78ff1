"""Teaching heads of the attention between views to look at corresponding patches.

Features that are alike in corresponding patches do not make a network use them: that takes heads
whose queries find those patches, so that what is known there flows here. Left alone, such heads
are slow to emerge. Where each patch of a view should look is known exactly; the cross-entropy of a
head's whole attention says how far it is from looking there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from models.vggt.aggregator import Aggregator
from models.vggt.block import Attention
from models.vggt.rope import Rotations, rotate
from training.vggt.matching import NO_MATCH, MatchingConfig, MatchingResult


class AttentionTeacher:
    """Listens to some blocks of a network, and judges where their first heads look.

    The network's own attention never exists as a matrix; that of the taught heads is made again
    here, from the tokens that a forward hook has seen.
    """

    def __init__(self, aggregator: Aggregator, config: MatchingConfig) -> None:
        """Begin to listen.

        Args:
            aggregator: Of the network in training; copies made later listen too, so make none.
            config: Which blocks and how many heads.
        """
        self._heads = config.attention_heads
        self._patch_start = aggregator.patch_start
        self._seen: dict[Attention, tuple[Tensor, Rotations]] = {}
        for index in config.attention_blocks:
            block: nn.Module = aggregator.global_blocks[index]
            block.attn.register_forward_pre_hook(self._listen)  # pyright: ignore

    def judge(
        self, matches: Int[Tensor, "batch view patch"], others: Sequence[int]
    ) -> MatchingResult:
        """Compare the attention in the last forward pass with true correspondences.

        Args:
            matches: The patch of view ``others[v]`` that each patch of view v should look at.
            others: One view for each view.
        """
        batch, views, patches = matches.shape
        per_view = self._patch_start + patches
        offsets = matches.new_tensor(others)[:, None] * per_view + self._patch_start
        targets = torch.where(matches == NO_MATCH, NO_MATCH, matches + offsets)
        targets = targets[:, None].expand(-1, self._heads, -1, -1)
        matched = targets != NO_MATCH
        count = matched.sum().clamp_min(1)
        losses, accuracies = [], []
        for attention, (tokens, rotations) in self._seen.items():
            logits = _attention_logits(attention, tokens, rotations, self._heads)
            logits = logits.unflatten(2, (views, per_view))[:, :, :, self._patch_start :]
            entropy = functional.cross_entropy(
                logits.flatten(0, 3), targets.flatten(), ignore_index=NO_MATCH, reduction="sum"
            )
            losses.append(entropy / count)
            accuracies.append(((logits.argmax(-1) == targets) & matched).sum() / count)
        self._seen.clear()
        return MatchingResult(torch.stack(losses).mean(), torch.stack(accuracies).mean())

    def forget(self) -> None:
        """Drop what was seen, in steps that are not judged."""
        self._seen.clear()

    def _listen(self, attention: nn.Module, arguments: tuple[Any, ...]) -> None:
        assert isinstance(attention, Attention)
        tokens, rotations = arguments
        self._seen[attention] = (tokens, rotations)


def _attention_logits(
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
