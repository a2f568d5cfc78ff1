"""Low-rank additions to the last blocks of a network whose own weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor, nn

from models.vggt.aggregator import Aggregator


class LowRankAddition(nn.Module):
    """What is added to the output of one linear layer ("LoRA", Hu et al. 2022); 0 at first."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Float[Tensor, "*batch channel"]) -> Float[Tensor, "*batch out"]:
        """Return the addition for an input of the layer."""
        return self.up(self.down(x))


class LowRankTuning(nn.Module):
    """Additions to every linear layer in the last blocks of alternating attention."""

    def __init__(self, aggregator: Aggregator, blocks: int, rank: int) -> None:
        """Attach additions; they act from now on whenever the aggregator runs.

        Args:
            aggregator: Its own weights are neither changed nor held.
            blocks: How many of the last pairs of frame and global blocks.
            rank: Channels between the two matrices of an addition.

        Raises:
            ValueError: There are not so many blocks.
        """
        super().__init__()
        depth = len(aggregator.global_blocks)
        if not 1 <= blocks <= depth or rank < 1:
            raise ValueError(
                f"tuned_blocks={blocks} must lie in 0..{depth} and tuned_rank={rank} be positive"
            )
        tuned = [*aggregator.frame_blocks[-blocks:], *aggregator.global_blocks[-blocks:]]
        layers = [
            layer for block in tuned for layer in block.modules() if isinstance(layer, nn.Linear)
        ]
        self.additions = nn.ModuleList(LowRankAddition(layer, rank) for layer in layers)
        for layer, addition in zip(layers, self.additions, strict=True):
            layer.register_forward_hook(_adds(addition))


def _adds(addition: nn.Module) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + addition(inputs[0])

    return hook
