"""What the datasets of a training have in common."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SamplingRules:
    """How samples are drawn."""

    num_nearest: int
    """Neighbours of a target that its training sources are drawn among."""
    num_targets: int
    """Targets of a training sample."""
    max_sources: int
    """No request asks for more sources."""


@dataclass(frozen=True)
class ItemGroup:
    """A run of items whose samples can be in one batch."""

    first: int
    count: int
    weight: float = 1.0
    """Share of the batches that come from it, relative to the other groups."""
