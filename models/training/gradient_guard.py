"""Clip gradients, and leave the weights alone in a step whose gradient is not finite."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class NonFiniteTrainingError(RuntimeError):
    """Gradients stayed non-finite for too many steps."""


class GradientGuard:
    """Bounds each step's gradient and counts the steps that had to be skipped."""

    def __init__(self, max_norm: float, max_bad_steps: int) -> None:
        """Set the limits.

        Args:
            max_norm: Largest norm of the gradient.
            max_bad_steps: Consecutive skipped steps after which training stops.
        """
        self.max_norm = max_norm
        self.max_bad_steps = max_bad_steps
        self.bad_steps = 0
        self.bad_steps_in_a_row = 0

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> Float[Tensor, ""]:
        """Clip the gradient in place, or drop it; return its norm.

        To be called where gradients are already reduced over devices, so that every rank decides
        alike. Optimisers pass over parameters without a gradient.

        Raises:
            NonFiniteTrainingError: Too many steps in a row were bad.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
        if torch.isfinite(norm):
            self.bad_steps_in_a_row = 0
            return norm
        optimizer.zero_grad(set_to_none=True)
        self.bad_steps += 1
        self.bad_steps_in_a_row += 1
        if self.bad_steps_in_a_row >= self.max_bad_steps:
            raise NonFiniteTrainingError(
                f"{self.bad_steps_in_a_row} steps in a row had non-finite gradients, the last at "
                f"step {step}; the weights are those before the first of them. Lower --lrate, use "
                "full precision or look at the data, then resume with --ckpt."
            )
        return norm

    def state(self) -> list[int]:
        """Return the counters, for a checkpoint."""
        return [self.bad_steps, self.bad_steps_in_a_row]

    def restore(self, state: list[int]) -> None:
        """Take the counters of a checkpoint."""
        self.bad_steps, self.bad_steps_in_a_row = state
