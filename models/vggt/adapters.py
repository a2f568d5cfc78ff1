"""Low-rank adapters of the backbone ("LoRA", Hu et al., 2022)."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from torch import Tensor, nn

from models.vggt.aggregator import Aggregator
from models.vggt.omega import OmegaAggregator
from utils.errors import UserError


class LowRankTuning(nn.Module):
    """Adapters on every linear layer of the last attention blocks."""

    def __init__(self, aggregator: Aggregator | OmegaAggregator, blocks: int, rank: int) -> None:
        """Attach adapters to the last ``blocks`` pairs of blocks."""
        super().__init__()
        depth = len(aggregator.global_blocks)
        if blocks > depth:
            raise UserError(f"tuned_blocks={blocks}: the backbone has {depth} pairs of blocks")
        tuned = [*aggregator.frame_blocks[-blocks:], *aggregator.global_blocks[-blocks:]]
        layers = [
            layer for block in tuned for layer in block.modules() if isinstance(layer, nn.Linear)
        ]
        self.additions = nn.ModuleList(_low_rank_adapter(layer, rank) for layer in layers)
        for layer, adapter in zip(layers, self.additions, strict=True):
            layer.register_forward_hook(partial(_add_output, adapter))


def _low_rank_adapter(layer: nn.Linear, rank: int) -> nn.Module:
    """Build an adapter whose output, added to that of a layer, is initially 0."""
    down = nn.Linear(layer.in_features, rank, bias=False)
    up = nn.Linear(rank, layer.out_features, bias=False)
    nn.init.zeros_(up.weight)
    return nn.Sequential(OrderedDict(down=down, up=up))


def _add_output(
    adapter: nn.Module, _: nn.Module, inputs: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    return output + adapter(inputs[0])
