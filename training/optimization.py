"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from warmup_scheduler import GradualWarmupScheduler


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a linear warm-up and a cosine decay."""

    batch_size: int = 2048
    """rays per step on each device, shared evenly by the scenes of the step"""
    lrate: float = 5e-4
    """learning rate after the warm-up"""
    lrate_end: float = 0.02
    """learning rate at the end of training, as a share of lrate"""
    warmup_steps: int = 500
    """steps over which the learning rate rises from 0"""
    backbone_lrate: float = 0.1
    """learning rate of what is tuned in the backbone, as a share of lrate"""
    weight_decay: float = 1e-4
    """decoupled weight decay"""
    grad_clip: float = 1.0
    """largest norm of the gradient"""
    max_bad_steps: int = 20
    """consecutive steps with non-finite gradients after which the run stops"""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        for name in ("batch_size", "lrate", "grad_clip", "warmup_steps", "max_bad_steps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")


class ResumableWarmup(GradualWarmupScheduler):
    """``GradualWarmupScheduler`` whose state is plain data.

    The stock class puts its inner scheduler, and through it the optimiser, into ``state_dict``:
    such a checkpoint cannot be loaded safely, and loading it detaches the schedule from the
    optimiser that is being trained.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return own counters and the inner scheduler's state."""
        plain = {
            key: value
            for key, value in self.__dict__.items()
            if key not in ("optimizer", "after_scheduler") and not callable(value)
        }
        return {**plain, "after_scheduler": self._decay.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        own = dict(state_dict)
        self._decay.load_state_dict(own.pop("after_scheduler"))
        self.__dict__.update(own)

    @property
    def _decay(self) -> LRScheduler:
        if self.after_scheduler is None:
            raise TypeError("ResumableWarmup needs a schedule to follow the warm-up")
        return self.after_scheduler


def build_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, total_steps: int
) -> tuple[torch.optim.AdamW, ResumableWarmup]:
    """Return AdamW and its schedule over ``total_steps`` optimiser steps.

    Args:
        parameters: By name: those of the backbone learn at a rate of their own.
        config: Rates and schedule.
        total_steps: Length of the schedule.
    """
    own, tuned = [], []
    for name, parameter in parameters:
        (tuned if name.startswith("backbone.") else own).append(parameter)
    groups = [{"params": own, "lr": config.lrate}]
    if tuned:
        groups.append({"params": tuned, "lr": config.lrate * config.backbone_lrate})
    optimizer = torch.optim.AdamW(
        groups, lr=config.lrate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    schedule = warmup_cosine(
        optimizer,
        warmup_steps=config.warmup_steps,
        total_steps=total_steps,
        end_share=config.lrate_end,
    )
    return optimizer, schedule


def warmup_cosine(
    optimizer: torch.optim.Optimizer, *, warmup_steps: int, total_steps: int, end_share: float
) -> ResumableWarmup:
    """Return the schedule: linear from 0 over the warm-up, then a cosine from 1 to ``end_share``.

    The warm-up takes at most half of the steps.
    """
    warmup = min(warmup_steps, max(total_steps // 2, 1))
    decay_steps = max(total_steps - warmup, 1)

    def cosine(step: int) -> float:
        progress = min(step / decay_steps, 1.0)
        return end_share + (1 - end_share) * (1 + math.cos(math.pi * progress)) / 2

    decay = LambdaLR(optimizer, cosine)
    return ResumableWarmup(optimizer, multiplier=1.0, total_epoch=warmup, after_scheduler=decay)
