"""Several data sets as one."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from torch.utils.data import Dataset

from datasets.formats.dtu import DTUDataset
from datasets.sampling_rules import ItemGroup
from datasets.scene_dataset import SceneDataset
from datasets.views import Sample, SampleRequest


class MixedDataset(Dataset[Sample]):
    """Data sets one after the other. Their units of length need not agree: each has its own."""

    def __init__(
        self, parts: Sequence[DTUDataset | SceneDataset], weights: Sequence[float]
    ) -> None:
        """Join data sets.

        Args:
            parts: At least one.
            weights: Share of the batches that come from each, relative to the others.
        """
        self._parts, self._weights = parts, weights
        self._starts = [0, *accumulate(len(part) for part in parts)]

    @property
    def groups(self) -> list[ItemGroup]:
        """Runs of items that can be in one batch; a part's weight is shared by its items."""
        return [
            ItemGroup(start + group.first, group.count, weight * group.count / len(part))
            for part, start, weight in zip(
                self._parts, self._starts[:-1], self._weights, strict=True
            )
            for group in part.groups
        ]

    def __len__(self) -> int:
        """Count the items of all parts."""
        return self._starts[-1]

    def __getitem__(self, request: SampleRequest) -> Sample:
        """Read the sample from the part that has it."""
        number = bisect_right(self._starts, request.index) - 1
        return self._parts[number][request._replace(index=request.index - self._starts[number])]
