"""Where training scenes come from: planned by worker processes, rendered on the training device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from datasets.procedural import ProceduralConfig, ProceduralGenerator
from datasets.views import Views


class SceneRequest(NamedTuple):
    """Numbered scenes, seen in some way: the same request always gives the same images."""

    scene_ids: Sequence[int]
    num_views: int
    size: tuple[int, int]
    """Height and width."""
    difficulty: float


@dataclass(frozen=True)
class SceneSource:
    """A supply of scenes in two stages."""

    prepare: Callable[[SceneRequest], Any]
    """Plans scenes on the CPU; what it returns travels from a worker process to the trainer."""
    make_renderer: Callable[[torch.device], Callable[[Any], Views]]
    """Returns, for a device, what turns a plan into views with batch axes (scene, view)."""

    def sample(self, request: SceneRequest, device: torch.device) -> Views:
        """Do both stages in one go."""
        return self.make_renderer(device)(self.prepare(request))


def procedural_source(config: ProceduralConfig) -> SceneSource:
    """Return the endless supply of procedural scenes."""
    planner = ProceduralGenerator(config, "cpu")

    def make_renderer(device: torch.device) -> Callable[[Any], Views]:
        generator = ProceduralGenerator(config, device)
        return lambda prepared: generator.render(prepared).views

    return SceneSource(lambda request: planner.prepare(*request), make_renderer)


class PreparedScenes(Dataset[tuple[int, Any]]):
    """Item i is (i, the plan of request i)."""

    def __init__(
        self, request: Callable[[int], SceneRequest], prepare: Callable[[SceneRequest], Any]
    ) -> None:
        self._request = request
        self._prepare = prepare

    def __getitem__(self, index: int) -> tuple[int, Any]:
        """Plan the scenes of a step."""
        return index, self._prepare(self._request(index))


class StepSampler(Sampler[int]):
    """The next steps of a run, as many as an epoch has.

    It starts at the run's present step, so that a resumed run goes on where it stopped.
    """

    def __init__(self, current_step: Callable[[], int], steps: int) -> None:
        self._current_step = current_step
        self._steps = steps

    def __len__(self) -> int:
        """Count the steps of an epoch."""
        return self._steps

    def __iter__(self) -> Iterator[int]:
        """Count up from the present step."""
        first = self._current_step()
        return iter(range(first, first + self._steps))


def scene_loader(
    scenes: PreparedScenes, steps: Sampler[int] | range, num_workers: int
) -> DataLoader[tuple[int, Any]]:
    """Return a loader that plans ahead in worker processes."""
    return DataLoader(
        scenes,
        batch_size=None,
        sampler=steps,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        prefetch_factor=4 if num_workers else None,
        persistent_workers=num_workers > 0,
    )


def _as_it_is(item: Any) -> Any:  # noqa: ANN401
    return item
