"""Learning rates of fine-tuning: what is general moves slowly, what is the scene's own fast."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from models.scene_model import SceneModel

_BETAS = (0.9, 0.99)
_COUNTS = ("step_sources", "spare_sources", "refine_every")
_EPS = 1e-15
"""Entries of a grid have tiny gradients; nothing else may outweigh them in Adam's quotient."""


@dataclass(frozen=True)
class SceneOptimizerConfig:
    """Adam with learning rates for each part, a short warm-up and a cosine decay."""

    num_steps: int = 4000
    """steps of the whole run"""
    batch_size: int = 8192
    """rays of a step"""
    targets_per_step: int = 2
    """training views that the rays of a step are from"""
    step_sources: int = 0
    """views that a step renders a training view from, at most n_views; 0: n_views"""
    spare_sources: int = 2
    """views beyond these among which they are drawn at every step"""
    refine_every: int = 250
    """steps between new looks at the depth of the training views; 0: only before the first"""
    lrate: float = 5e-4
    """learning rate of the radiance field and of the volume network"""
    lrate_maps: float = 2e-3
    """learning rate of the feature maps"""
    lrate_end: float = 0.03
    """learning rates at the end of the run, as a share of these"""
    average_decay: float = 0.995
    """share of the averaged weights, which are what counts, that a step leaves; 0: no average"""
    warmup_steps: int = 50
    """steps over which the learning rates rise from 0"""
    grad_clip: float = 1.0
    """largest norm of the gradient"""
    max_bad_steps: int = 20
    """consecutive steps with non-finite gradients after which the run stops"""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        for name in ("num_steps", "targets_per_step", "lrate", "grad_clip", "max_bad_steps"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} must be positive")
        for name in ("lrate_maps", "lrate_end", "warmup_steps", *_COUNTS):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay={self.average_decay} must lie in [0, 1)")
        if self.batch_size < self.targets_per_step:
            raise ValueError(
                f"batch_size={self.batch_size} rays are fewer than "
                f"targets_per_step={self.targets_per_step}"
            )

    def factor(self, step: int) -> float:
        """Return what the learning rates are multiplied by at a step, counted from 0."""
        warmup = min(self.warmup_steps, self.num_steps // 4)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        progress = (step - warmup) / max(self.num_steps - warmup, 1)
        return self.lrate_end + (1 - self.lrate_end) * (1 + math.cos(math.pi * progress)) / 2


def build_scene_optimizer(scene: SceneModel, config: SceneOptimizerConfig) -> torch.optim.Adam:
    """Return Adam on all that is tuned; everything else stops taking gradients."""
    scene.requires_grad_(False)
    general = [*scene.model.radiance_field.parameters(), *scene.model.volume.parameters()]
    parts = {"lrate": general, "lrate_maps": [scene.fine, scene.coarse]}
    groups = [{"params": values, "lr": getattr(config, name)} for name, values in parts.items()]
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
        group["base_lr"] = group["lr"]
    return torch.optim.Adam(groups, betas=_BETAS, eps=_EPS, fused=True)


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Scale every group's own learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
