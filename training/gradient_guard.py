"""Clip gradients, and leave the weights alone in a step whose gradient is not finite."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from utils.errors import NonFiniteTrainingError

# Looking at a number waits for the device, which then has nothing to do until the host catches up.
LOOK_EVERY = 20
_REMEDY = "Lower --lrate, use full precision or look at the data, then resume with --ckpt."


class GradientGuard:
    """Bounds each step's gradient and counts the steps that had to be skipped.

    A fused optimiser skips a step on the device itself; what it skipped is then looked at every
    ``LOOK_EVERY`` steps only. For any other optimiser each step is looked at.
    """

    def __init__(self, max_norm: float, max_bad_steps: int, remedy: str = _REMEDY) -> None:
        """Set the limits.

        Args:
            max_norm: Largest norm of the gradient.
            max_bad_steps: Consecutive skipped steps after which training stops.
            remedy: What to do then, for the error.
        """
        self.max_norm = max_norm
        self.max_bad_steps = max_bad_steps
        self.remedy = remedy
        self.bad_steps = 0
        self.bad_steps_in_a_row = 0
        self._not_looked_at: list[Bool[Tensor, ""]] = []

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> Float[Tensor, ""]:
        """Clip the gradient in place, or see to it that the step is skipped; return the norm.

        To be called where gradients are already reduced over devices, so that every rank decides
        alike. Optimisers pass over parameters without a gradient.

        Raises:
            NonFiniteTrainingError: Too many steps in a row were bad.
        """
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)
        bad = ~torch.isfinite(norm)
        self._not_looked_at.append(bad)
        if all(group.get("fused") for group in optimizer.param_groups):
            # What PyTorch's gradient scaler, too, tells a fused optimiser.
            optimizer.found_inf = bad.float()  # pyright: ignore[reportAttributeAccessIssue]
            if len(self._not_looked_at) >= LOOK_EVERY:
                self._look(step)
            return norm
        if bad:
            optimizer.zero_grad(set_to_none=True)
        self._look(step)
        return norm

    def state(self) -> list[int]:
        """Return the counters, for a checkpoint."""
        self._count()
        return [self.bad_steps, self.bad_steps_in_a_row]

    def restore(self, state: list[int]) -> None:
        """Take the counters of a checkpoint."""
        self.bad_steps, self.bad_steps_in_a_row = state

    def _count(self) -> None:
        if not self._not_looked_at:
            return
        for bad in torch.stack(self._not_looked_at).tolist():
            self.bad_steps += bad
            self.bad_steps_in_a_row = self.bad_steps_in_a_row + 1 if bad else 0
        self._not_looked_at.clear()

    def _look(self, step: int) -> None:
        self._count()
        if self.bad_steps_in_a_row >= self.max_bad_steps:
            raise NonFiniteTrainingError(
                f"{self.bad_steps_in_a_row} steps in a row had non-finite gradients, the last at "
                f"step {step}; the weights are those before the first of them. {self.remedy}"
            )
