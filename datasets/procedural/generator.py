"""Generator of posed images of procedural scenes with exact geometry.

A scene is a function of (seed, scene id), and a view of (seed, scene id, view number), regardless
of the other scenes in the batch and of the number of views.
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
    """Batch axes (scene, view). Depth is 0 without a surface; all masks are true."""
    near_far: Float[Tensor, "scene 2"]
    """Bounds of the depths of these views, with a margin."""


class ProceduralGenerator:
    """Plans and renders scenes by number."""

    def __init__(self, config: ProceduralConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self._photos = None
        if config.texture_folder is not None:
            self._photos = load_photos(config.texture_folder).to(self.device)

    def on(self, device: torch.device | str) -> ProceduralGenerator:
        """Return a generator of the same scenes on another device."""
        return ProceduralGenerator(self.config, device)

    def sample(
        self,
        scene_ids: Sequence[int],
        num_views: int,
        size: tuple[int, int],
        difficulty: float = 1.0,
    ) -> ProceduralBatch:
        """Plan and render views 0 to ``num_views`` - 1 of scenes; see ``prepare``."""
        return self.render(self.prepare(scene_ids, num_views, size, difficulty))

    def prepare(
        self,
        scene_ids: Sequence[int],
        num_views: int,
        size: tuple[int, int],
        difficulty: float = 1.0,
        light: int = 0,
    ) -> PreparedBatch:
        """Plan scenes on the CPU, in a worker process for example.

        ``size`` is height and width. ``difficulty`` in [0, 1] widens baselines, adds clutter and
        varies the light between views. ``light`` selects a light condition of the same scene.
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
    """Bound the depth of each scene with a margin of 5 %; 1 and 2 if no surface is visible."""
    nearest, farthest = torch.where(depth > 0, depth, torch.inf).amin(1), depth.amax(1)
    bounds = torch.stack([0.95 * nearest, 1.05 * farthest], -1)
    return torch.where((farthest > 0)[:, None], bounds, bounds.new_tensor([1.0, 2.0]))
