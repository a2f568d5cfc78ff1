"""Where the training of the small backbone gets its scenes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from datasets.procedural import ProceduralConfig, ProceduralGenerator
from datasets.replay import SceneRequest
from datasets.views import Views


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
