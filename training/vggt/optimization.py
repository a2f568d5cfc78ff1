"""Optimiser and schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class MiniOptimizerConfig:
    """AdamW with a linear warm-up and a cosine decay."""

    lrate: float = 1e-3
    """learning rate after the warm-up"""
    lrate_end: float = 0.01
    """learning rate at the end of training, as a share of lrate"""
    warmup_steps: int = 1000
    """steps over which the learning rate rises from 0"""
    max_steps: int = 60_000
    """steps of the whole training, over however many sittings"""
    weight_decay: float = 0.05
    """decoupled weight decay of matrices and kernels"""
    grad_clip: float = 1.0
    """largest norm of the gradient"""
    ema_decay: float = 0.9995
    """share of the averaged weights that a step leaves as it was"""
    max_bad_steps: int = 50
    """consecutive steps with non-finite gradients after which the run stops"""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        for name in ("lrate", "warmup_steps", "max_steps", "grad_clip", "max_bad_steps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay={self.ema_decay} must lie in [0, 1)")

    def rate_at(self, step: int) -> float:
        """Return the share of ``lrate`` that applies to a step."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.max_steps - self.warmup_steps)
        cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
        return self.lrate_end + (1 - self.lrate_end) * cosine


def build_mini_optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]], config: MiniOptimizerConfig
) -> tuple[torch.optim.AdamW, LambdaLR]:
    """Return AdamW over the trainable parameters, and its schedule per step.

    Vectors (biases, norms, layer scales) and tokens are exempt from weight decay.
    """
    decayed, exempt = [], []
    for name, parameter in parameters:
        if parameter.requires_grad:
            is_vector = parameter.ndim < 2 or "token" in name or "pos_embed" in name
            (exempt if is_vector else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]
    on_gpu = any(parameter.is_cuda for parameter in decayed)
    optimizer = torch.optim.AdamW(groups, lr=config.lrate, betas=(0.9, 0.95), fused=on_gpu)
    # A plain function: the schedule would save a bound method, and that is no plain data.
    return optimizer, LambdaLR(optimizer, lambda step: config.rate_at(step))
