"""Held-out procedural worlds as scenes of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from datasets.config import DataChoice, HeldOutScenes
from datasets.posed_scene import PosedScene, ViewPixels
from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralBatch, ProceduralGenerator
from datasets.protocols import Protocol, Region, SceneTask, plan_task
from datasets.views import Views

_WORLD_SIZE = (192, 256)
_REGION = Region(depth_is_complete=True)


def world_tasks(
    held_out: HeldOutScenes, choice: DataChoice, device: torch.device | str = "cpu"
) -> Iterator[SceneTask]:
    """Render every world twice, with textures and with nearly all surfaces plain.

    Shapes, cameras and lamps are the same both times, so that the subsets differ in texture alone.
    """
    size = choice.size or _WORLD_SIZE
    views = tuple(range(held_out.world_views))
    protocol = Protocol(views[: held_out.world_targets], views, _REGION)
    generators = {
        subset: ProceduralGenerator(
            ProceduralConfig(seed=held_out.world_seed, textureless=share), device
        )
        for subset, share in (("textured", 0.0), ("textureless", 1.0))
    }
    for world in range(held_out.num_worlds):
        for subset, generator in generators.items():
            batch = generator.sample([world], held_out.world_views, size, held_out.world_difficulty)
            scene = posed_world(batch, f"world{world:04d}_{subset}")
            yield plan_task(scene, protocol, choice, subset)


def posed_world(batch: ProceduralBatch, name: str) -> PosedScene:
    """Convert a rendered batch of one scene to a posed scene."""
    views = batch.views[0].to("cpu")
    ids = tuple(range(len(views.images)))
    return PosedScene(
        name=name,
        view_ids=ids,
        view_names=tuple(f"{view:03d}" for view in ids),
        cameras=views.cameras,
        near_far=batch.near_far[0].cpu(),
        image_size=views.size,
        read_view=partial(_view_pixels, views),
    )


def _view_pixels(views: Views, view: int) -> ViewPixels:
    return ViewPixels(
        image=views.images[view].permute(1, 2, 0).numpy(),
        depth=views.depths[view].numpy(),
        mask=views.masks[view].numpy(),
    )
