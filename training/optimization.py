"""Optimiser, learning-rate schedule and exponential moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import get_ema_multi_avg_fn

from training.config import OptimizerConfig

LRATE_END = 0.02
"""Learning rate at the end of general training, as a share of its peak."""
_WEIGHT_DECAY = 1e-4


class ResumableSchedule(LambdaLR):
    """Learning rates as a function of the step, the only state in a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps taken."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the learning rates of the next step."""
        self.last_epoch = state_dict["last_epoch"]
        if state_dict.get("finished"):
            # Files of early versions, by warmup-scheduler, count the decay separately.
            self.last_epoch += state_dict["after_scheduler"]["last_epoch"]
        self._last_lr = [
            base * factor(self.last_epoch)
            for base, factor in zip(self.base_lrs, self.lr_lambdas, strict=True)
        ]
        for group, rate in zip(self.optimizer.param_groups, self._last_lr, strict=True):
            group["lr"] = rate


def warmup_cosine(
    optimizer: torch.optim.Optimizer,
    warmup_steps: int,
    total_steps: int,
    end_share: float,
    first: int = 1,
    hold: int = 0,
) -> ResumableSchedule:
    """Return a schedule with linear warm-up and cosine decay.

    Step ``s`` has the share ``(s + first) / (warmup_steps + first)`` of each group's rate until
    ``warmup_steps``. The decay begins ``hold`` steps later and ends at ``end_share`` after
    ``total_steps + hold`` steps in all.
    """

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + first) / (warmup_steps + first)
        progress = max(step - warmup_steps - hold, 0) / max(total_steps - warmup_steps, 1)
        return end_share + (1 - end_share) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2

    return ResumableSchedule(optimizer, factor)


def build_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, total_steps: int
) -> tuple[torch.optim.AdamW, ResumableSchedule]:
    """Return AdamW and its schedule; parameters named ``backbone.*`` have their own rate."""
    model, backbone = [], []
    for name, parameter in parameters:
        (backbone if name.startswith("backbone.") else model).append(parameter)
    groups = [{"params": model, "lr": config.lrate}]
    if backbone:
        groups.append({"params": backbone, "lr": config.lrate * config.backbone_lrate})
    optimizer = torch.optim.AdamW(
        groups, lr=config.lrate, weight_decay=_WEIGHT_DECAY, betas=(0.9, 0.98)
    )
    warmup = min(config.warmup_steps, max(total_steps // 2, 1))
    steps = {"warmup_steps": warmup, "total_steps": total_steps, "first": 0, "hold": 1}
    return optimizer, warmup_cosine(optimizer, end_share=LRATE_END, **steps)


class AveragedWeights:
    """Exponential moving average of parameters, which can be swapped in for them.

    The decay rises to its final value, so that the initial weights have little influence.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        """Start from the current values; each step keeps the share ``decay`` of the average."""
        self.parameters, self.decay = parameters, decay
        self.restart()

    @torch.no_grad()
    def update(self) -> None:
        """Add the current values to the average."""
        self.steps += 1
        decay = min(self.decay, self.steps / (9 + self.steps))
        get_ema_multi_avg_fn(decay)(self.values, [p.detach() for p in self.parameters], None)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the parameters the averaged values within the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Any]:
        """Return the state that resuming needs besides the averaged values."""
        return {"steps": self.steps, "trained": [p.detach() for p in self.parameters]}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Restore a result of ``state``, while the parameters hold the averaged values."""
        self.restart()
        self.steps = state["steps"]
        for parameter, value in zip(self.parameters, state["trained"], strict=True):
            parameter.copy_(value)

    def restart(self) -> None:
        """Reset the average to the current values."""
        self.steps = 0
        self.values = [parameter.detach().clone() for parameter in self.parameters]

    def _swap(self) -> None:
        # Exchanging storages copies nothing and keeps the optimiser's references valid.
        for index, parameter in enumerate(self.parameters):
            parameter.data, self.values[index] = self.values[index], parameter.data
