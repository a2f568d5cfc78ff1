"""An endless source of posed images with exact geometry.

A scene is a function of (seed, scene id), a view of it of (seed, scene id, view number): neither
depends on what else is in the batch, nor on how many views are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.renderer.rendering import develop, render_views
from datasets.procedural.renderer.textures import load_photos
from datasets.procedural.worlds.planning import PreparedBatch, plan_scene
from datasets.views import Views, join


@dataclass(frozen=True)
class ProceduralBatch:
    """Rendered scenes."""

    views: Views
    """Batch axes (scene, view). Depth is 0 where there is no surface; colours count everywhere,
    so that all masks are true."""
    near_far: Float[Tensor, "scene 2"]
    """Bounds of the depth in these views, with a margin."""


class ProceduralGenerator:
    """Renders scenes by number."""

    def __init__(self, config: ProceduralConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self._photos = None
        if config.texture_folder is not None:
            self._photos = load_photos(config.texture_folder).to(self.device)

    def on(self, device: torch.device | str) -> ProceduralGenerator:
        """Return the same scenes, rendered on another device."""
        return ProceduralGenerator(self.config, device)

    def sample(
        self,
        scene_ids: Sequence[int],
        num_views: int,
        size: tuple[int, int],
        difficulty: float = 1.0,
    ) -> ProceduralBatch:
        """Render views 0 to ``num_views`` - 1 of scenes at (height, width).

        ``difficulty`` in [0, 1] widens baselines, adds clutter and lets the light change between
        views.
        """
        return self.render(self.prepare(scene_ids, num_views, size, difficulty))

    def prepare(
        self,
        scene_ids: Sequence[int],
        num_views: int,
        size: tuple[int, int],
        difficulty: float = 1.0,
        light: int = 0,
    ) -> PreparedBatch:
        """Plan scenes on the CPU, without touching the device: fit for a worker process.

        ``light`` chooses one of a scene's light settings; geometry and cameras stay.
        """
        view = (num_views, size, difficulty, light)
        return join([plan_scene(self.config, scene, *view) for scene in scene_ids])

    @torch.no_grad()
    def render(self, prepared: PreparedBatch) -> ProceduralBatch:
        """Render planned scenes on the generator's device."""
        device = self.device
        cameras, seeds = prepared.cameras.to(device), prepared.seeds.to(device)
        scenes = prepared.scenes.map(lambda tensor: tensor.to(device, non_blocking=True))
        lamps, quality = prepared.lamps.to(device), (self.config, self._photos)
        rendered = render_views(scenes, cameras, lamps, seeds, prepared.size, *quality)
        light, depth = rendered[..., :3], rendered[..., 3]
        light, sensors = light.flatten(0, 1).permute(0, 3, 1, 2), prepared.sensors.to(device)
        images = develop(light, sensors.flatten(0, 1), seeds.flatten()).unflatten(0, seeds.shape)
        views = Views(images, cameras, depth, torch.ones_like(depth, dtype=torch.bool))
        return ProceduralBatch(views, _depth_bounds(depth.flatten(1)))


def _depth_bounds(depth: Float[Tensor, "scene pixel"]) -> Float[Tensor, "scene 2"]:
    """Bound the depth of each scene, with a margin; 1 and 2 where nothing is seen."""
    nearest, farthest = torch.where(depth > 0, depth, torch.inf).amin(1), depth.amax(1)
    bounds = torch.stack([0.95 * nearest, 1.05 * farthest], -1)
    return torch.where((farthest > 0)[:, None], bounds, bounds.new_tensor([1.0, 2.0]))
