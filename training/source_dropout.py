"""Leaving sources out of a training step, so that scenes of one batch have different numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from datasets.views import Views


@dataclass(frozen=True)
class SourceDropoutConfig:
    """Which sources a training step does without."""

    source_dropout: float = 0.1
    """probability with which each source of a scene but its first is left out of a step"""

    def __post_init__(self) -> None:
        """Refuse what is no probability."""
        if not 0 <= self.source_dropout <= 1:
            raise ValueError(f"source_dropout={self.source_dropout} must lie in [0, 1]")


def draw_view_mask(
    sources: Views, config: SourceDropoutConfig, generator: torch.Generator
) -> Bool[Tensor, "batch view"] | None:
    """Draw the sources that a step sees; ``None``, and nothing is drawn, where that is all.

    Args:
        sources: Views ``(batch, view)``.
        config: How many to leave out.
        generator: On the device of the views.
    """
    shape = sources.images.shape[:2]
    if config.source_dropout == 0 or shape[1] == 1:
        return None
    device = sources.images.device
    view_mask = torch.rand(shape, generator=generator, device=device) >= config.source_dropout
    view_mask[:, 0] = True
    return view_mask
