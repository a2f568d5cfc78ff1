"""Exponential moving average of weights, which is what gets evaluated and shipped."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def averaged_copy(network: nn.Module) -> nn.Module:
    """Return a copy that no optimiser sees; as a submodule it is saved and moved by its parent."""
    return deepcopy(network).requires_grad_(False).eval()


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Pull the average towards the network.

    The decay rises from 0.1 at step 0 to its final value, so that the first random weights are
    soon forgotten.
    """
    decay = min(decay, (1 + step) / (10 + step))
    # Parameters only: the network's buffers are constants.
    pull = get_ema_multi_avg_fn(decay)
    pull(list(average.parameters()), list(network.parameters()), step)
