"""LPIPS as a loss, if the weights that it needs are on the machine."""

from __future__ import annotations

import lpips
from jaxtyping import Float
from torch import Tensor

from evaluation.perceptual import find_perceptual_weights, load_metric
from training.losses import PatchDistance


def perceptual_loss(weights: str | None = None) -> PatchDistance | None:
    """Return LPIPS, or ``None`` and a note on how to get its weights.

    Args:
        weights: VGG-16's file; by default the one in PyTorch's cache.

    Raises:
        UserError: The file is not what it should be.
    """
    file = find_perceptual_weights(weights)
    return None if file is None else _PatchLPIPS(load_metric(file))


class _PatchLPIPS:
    """Kept out of the module that trains, so that checkpoints do not hold VGG-16."""

    def __init__(self, metric: lpips.LPIPS) -> None:
        self._metric = metric

    def __call__(
        self,
        ours: Float[Tensor, "patch 3 side side"],
        theirs: Float[Tensor, "patch 3 side side"],
    ) -> Float[Tensor, " patch"]:
        """Compare on the device of the patches."""
        self._metric.to(ours.device)
        return self._metric(ours, theirs, normalize=True).flatten()
