"""Procedural worlds that no training has seen, with their textures and without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from datasets.config import DataChoice, HeldOutScenes
from datasets.posed_scene import PosedScene, ViewPixels
from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralBatch, ProceduralGenerator
from datasets.protocols import Protocol, Region, SceneTask, plan_task
from datasets.views import Views

TEXTURED, TEXTURELESS = "textured", "textureless"
WORLD_SIZE = (192, 256)
_REGION = Region(depth_is_complete=True)


@dataclass(frozen=True)
class _RenderedPixels:
    """Reads views of one world that is already rendered."""

    views: Views
    """One axis: view."""

    def __call__(self, view: int) -> ViewPixels:
        return ViewPixels(
            image=self.views.images[view].permute(1, 2, 0).numpy(),
            depth=self.views.depths[view].numpy(),
            mask=self.views.masks[view].numpy(),
        )


def world_tasks(
    held_out: HeldOutScenes, choice: DataChoice, device: torch.device | str = "cpu"
) -> Iterator[SceneTask]:
    """Yield every world twice: textured, then with nearly every surface plain.

    Shapes, cameras and lamps are the same both times, so that the subsets differ in texture alone.
    A world is rendered, on the given device, when its turn comes.
    """
    size = choice.size or WORLD_SIZE
    views = range(held_out.world_views)
    protocol = Protocol(views[: held_out.world_targets], views, _REGION)
    generators = {
        subset: ProceduralGenerator(
            ProceduralConfig(seed=held_out.world_seed, textureless=share), device
        )
        for subset, share in ((TEXTURED, 0.0), (TEXTURELESS, 1.0))
    }
    for world in range(held_out.num_worlds):
        for subset, generator in generators.items():
            batch = generator.sample([world], held_out.world_views, size, held_out.world_difficulty)
            scene = posed_world(batch, f"world{world:04d}_{subset}")
            yield plan_task(scene, protocol, choice, subset)


def posed_world(batch: ProceduralBatch, name: str) -> PosedScene:
    """Turn the only scene of a rendered batch into a posed scene."""
    batched = batch.views.to("cpu")
    views = Views(batched.images[0], batched.cameras[0], batched.depths[0], batched.masks[0])
    ids = tuple(range(len(views.images)))
    return PosedScene(
        name=name,
        view_ids=ids,
        view_names=tuple(f"{view:03d}" for view in ids),
        cameras=views.cameras,
        near_far=batch.near_far[0].cpu(),
        image_size=views.size,
        read_view=_RenderedPixels(views),
    )
