"""An endless source of posed images with exact geometry.

A scene is a function of (seed, scene id), a view of it of (seed, scene id, view number): neither
depends on what else is in the batch, nor on how many views are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.photos import load_photos
from datasets.procedural.render import Quality, Rendering, one_scene, pixel_chunks, render_pixels
from datasets.procedural.sensor import develop
from datasets.procedural.tables import SceneTables, stack_scenes
from datasets.procedural.worlds import plan_scene
from datasets.views import Views
from utils.cameras import Cameras


@dataclass(frozen=True)
class ProceduralBatch:
    """Rendered scenes."""

    views: Views
    """Batch axes (scene, view). Depth is 0 where there is no surface; colours count everywhere,
    so that all masks are true."""
    near_far: Float[Tensor, "scene 2"]
    """Bounds of the depth in these views, with a margin."""
    object_ids: Int[Tensor, "scene view height width"]
    """0: nothing, 1 to 6: faces of the room, 7: height field, from 8: things."""
    textureless: Float[Tensor, " scene"]
    """Share of pixels whose surface has no pattern and next to no variation."""


@dataclass(frozen=True)
class PreparedBatch:
    """Scenes that are planned but not rendered: small CPU tensors, cheap to send around."""

    scenes: SceneTables
    cameras: Cameras
    lights: Float[Tensor, "scene view light 8"]
    sensors: Float[Tensor, "scene view 7"]
    seeds: Int[Tensor, "scene view"]
    size: tuple[int, int]


class ProceduralGenerator:
    """Renders scenes by number."""

    def __init__(self, config: ProceduralConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self._quality = Quality(
            config.samples, config.march_steps, config.shadow_steps, config.rays_per_chunk
        )
        self._photos = None
        if config.texture_folder is not None:
            self._photos = load_photos(config.texture_folder).to(self.device)

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
        planned = [
            plan_scene(self.config, scene, num_views, size, difficulty, light)
            for scene in scene_ids
        ]
        intrinsics = np.stack([plan.intrinsics for plan in planned])
        c2w = np.stack([plan.c2w for plan in planned])
        return PreparedBatch(
            scenes=stack_scenes([plan.builder for plan in planned]),
            cameras=Cameras(torch.from_numpy(intrinsics).float(), torch.from_numpy(c2w).float()),
            lights=torch.tensor([plan.lights for plan in planned]),
            sensors=torch.tensor([plan.sensors for plan in planned]),
            seeds=torch.tensor([plan.seeds for plan in planned], dtype=torch.int32),
            size=size,
        )

    @torch.no_grad()
    def render(self, prepared: PreparedBatch) -> ProceduralBatch:
        """Render planned scenes on the generator's device."""
        count, views = prepared.cameras.shape
        device = self.device
        moved = (
            prepared.scenes.to(device),
            prepared.cameras.to(device),
            prepared.lights.to(device),
            prepared.seeds.to(device),
        )
        if device.type == "cpu":
            rendering, chunks = self._render_on_cpu(*moved, prepared.size)
        else:
            rendering, chunks = self._render_together(*moved, prepared.size)
        return _finish(prepared, rendering, _pixel_order(chunks, prepared.size), moved[3])

    def _render_together(
        self,
        scenes: SceneTables,
        cameras: Cameras,
        lights: Float[Tensor, "scene view light 8"],
        seeds: Int[Tensor, "scene view"],
        size: tuple[int, int],
    ) -> tuple[Rendering, list[Float[Tensor, "_pixel 2"]]]:
        """Render all views of all scenes at once, each view as a scene of its own."""
        count, views = cameras.shape
        each = {f.name: getattr(scenes, f.name) for f in fields(scenes)}
        repeated = replace(
            scenes, **{name: table.repeat_interleave(views, 0) for name, table in each.items()}
        )
        chunks = pixel_chunks(size, count * views, self._quality, self.device)
        flat = Cameras(cameras.intrinsics.flatten(0, 1), cameras.c2w.flatten(0, 1))
        images = self._image(repeated, flat, lights.flatten(0, 1), seeds.flatten(), chunks)
        parts = {f.name: getattr(images, f.name) for f in fields(images)}
        unflat = {name: part.unflatten(0, (count, views)) for name, part in parts.items()}
        return Rendering(**unflat), chunks

    def _render_on_cpu(
        self,
        scenes: SceneTables,
        cameras: Cameras,
        lights: Float[Tensor, "scene view light 8"],
        seeds: Int[Tensor, "scene view"],
        size: tuple[int, int],
    ) -> tuple[Rendering, list[Float[Tensor, "_pixel 2"]]]:
        """Render images one by one: a tile then looks only at surfaces that it may see.

        Tiles are too small for parallel kernels, so that each thread takes an image of its own.
        """
        count, views = cameras.shape
        chunks = pixel_chunks(size, 1, self._quality, self.device)
        tables = [one_scene(scenes, index) for index in range(count)]

        @torch.no_grad()
        def image(place: tuple[int, int]) -> Rendering:
            one = (slice(place[0], place[0] + 1), place[1])
            return self._image(tables[place[0]], cameras[one], lights[one], seeds[one], chunks)

        places = [(index, view) for index in range(count) for view in range(views)]
        images = _map_in_threads(image, places)
        rows = [
            _join(images[first : first + views], stacked=True)
            for first in range(0, len(images), views)
        ]
        return _join(rows, axis=0), chunks

    def _image(
        self,
        scenes: SceneTables,
        cameras: Cameras,
        lights: Float[Tensor, "scene light 8"],
        seeds: Int[Tensor, " scene"],
        chunks: list[Float[Tensor, "_pixel 2"]],
    ) -> Rendering:
        parts = [
            render_pixels(scenes, cameras, lights, seeds, pixels, self._quality, self._photos)
            for pixels in chunks
        ]
        return _join(parts, axis=1)


def _map_in_threads(
    task: Callable[[tuple[int, int]], Rendering], places: list[tuple[int, int]]
) -> list[Rendering]:
    """Run tasks in as many threads as PyTorch may use, with one kernel thread each."""
    threads = torch.get_num_threads()
    if threads == 1 or len(places) == 1:
        return [task(place) for place in places]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(task, places))
    finally:
        torch.set_num_threads(threads)


def _join(parts: list[Rendering], axis: int = 1, stacked: bool = False) -> Rendering:
    """Put renderings together along an axis, or stack views behind the scene axis."""
    put = torch.stack if stacked else torch.cat
    return Rendering(
        **{f.name: put([getattr(part, f.name) for part in parts], axis) for f in fields(Rendering)}
    )


def _pixel_order(
    chunks: list[Float[Tensor, "_pixel 2"]], size: tuple[int, int]
) -> Int[Tensor, " pixel"]:
    """Where each pixel of the image lies among the chunks."""
    column, row = torch.cat(chunks).long().unbind(-1)
    place = torch.arange(len(row), device=row.device)
    return torch.empty_like(place).scatter_(0, row * size[1] + column, place)


def _finish(
    prepared: PreparedBatch,
    rendering: Rendering,
    order: Int[Tensor, " pixel"],
    seeds: Int[Tensor, "scene view"],
) -> ProceduralBatch:
    """Make photographs of what was rendered, and bounds of the depth."""
    light = rendering.light[:, :, order].unflatten(2, prepared.size)
    depth = rendering.depth[:, :, order].unflatten(2, prepared.size)
    images = develop(
        light.flatten(0, 1).permute(0, 3, 1, 2),
        prepared.sensors.to(light.device).flatten(0, 1),
        seeds.flatten(),
    )
    nearest = torch.where(depth > 0, depth, torch.inf).flatten(1).amin(1)
    farthest = depth.flatten(1).amax(1)
    seen = farthest > 0
    near_far = torch.stack(
        [torch.where(seen, 0.95 * nearest, 1.0), torch.where(seen, 1.05 * farthest, 2.0)], -1
    )
    views = Views(
        images=images.unflatten(0, seeds.shape),
        cameras=prepared.cameras.to(light.device),
        depths=depth,
        masks=torch.ones_like(depth, dtype=torch.bool),
    )
    return ProceduralBatch(
        views=views,
        near_far=near_far,
        object_ids=rendering.object_id[:, :, order].unflatten(2, prepared.size),
        textureless=rendering.plain.flatten(1).mean(1),
    )
