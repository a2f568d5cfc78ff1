"""The mean of the weights over the last steps: what single steps get wrong cancels out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedWeights:
    """An exponential moving average of parameters (Polyak averaging), which can stand in for them.

    The first steps count more than later ones will, so that the start is soon forgotten.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        """Begin with what the parameters are.

        Args:
            parameters: Trained in place.
            decay: Share of the average that a step leaves; 0: the average is the last step.
        """
        self.parameters, self.decay = parameters, decay
        self.restart()

    @torch.no_grad()
    def update(self) -> None:
        """Take in what the parameters are now."""
        self.steps += 1
        decay = min(self.decay, self.steps / (9 + self.steps))
        get_ema_multi_avg_fn(decay)(self.values, [p.detach() for p in self.parameters], None)

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Let the parameters be the average inside."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def state(self) -> dict[str, Any]:
        """Return the parameters that are trained: with the average, all that resuming needs."""
        return {"steps": self.steps, "trained": [p.detach() for p in self.parameters]}

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Take what ``state`` returned; the parameters are the average at this moment."""
        self.restart()
        self.steps = state["steps"]
        for parameter, value in zip(self.parameters, state["trained"], strict=True):
            parameter.copy_(value)

    def restart(self) -> None:
        """Forget everything but what the parameters are now."""
        self.steps = 0
        self.values = [parameter.detach().clone() for parameter in self.parameters]

    def _swap(self) -> None:
        # Storages change places, so that nothing is copied and optimisers notice nothing.
        for place, parameter in enumerate(self.parameters):
            parameter.data, self.values[place] = self.values[place], parameter.data
