"""What models without a decoder share: samples spread over a ray, images ray by ray."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datasets.views import Views
from models.baselines.config import BaselineConfig
from models.novel_view import RenderedImages, rendering
from models.ray_sampling import DepthPlanes
from models.volume_rendering import Composite
from utils.cameras import Cameras, Rays, pixel_grid, pixel_rays
from utils.memory import rays_that_fit

SceneT = TypeVar("SceneT")
_CPU_RAYS = 64
"""Most rays at once on a CPU: more take longer, since they leave its cache."""
_SAMPLE_BYTES = 1 << 13
"""What a sample of a ray takes at most while it is rendered, of either baseline."""


def sample_depths(
    planes: DepthPlanes, num_rays: int, generator: torch.Generator | None = None
) -> Float[Tensor, "batch ray sample"]:
    """Spread ``planes.count`` z-depths evenly from near to far, both included.

    A generator moves each at random, halfway to its neighbours at most.
    """
    near_far = planes.near_far
    steps = torch.linspace(0, 1, planes.count, device=near_far.device)
    steps = steps.expand(len(near_far), num_rays, -1)
    if generator is not None:
        middles = (steps[..., 1:] + steps[..., :-1]) / 2
        lower = torch.cat([steps[..., :1], middles], -1)
        upper = torch.cat([middles, steps[..., -1:]], -1)
        drawn = torch.rand(steps.shape, generator=generator, device=steps.device)
        steps = torch.lerp(lower, upper, drawn)
    return planes.depths(steps)


class RayCaster(nn.Module, ABC, Generic[SceneT]):
    """A model that renders every ray on its own, from what it has encoded of a scene."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def num_samples(self) -> int:
        """Samples on each ray."""
        return self.config.ray_samples

    def with_samples(self, count: int) -> RayCaster[SceneT]:
        """Return the model with another number of samples on a ray; it shares all weights."""
        model = copy.copy(self)
        model.config = replace(self.config, ray_samples=count)
        return model

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Name all that changes a rendering beside the weights."""

    @abstractmethod
    def encode(self, sources: Views, near_far: Float[Tensor, "batch 2"]) -> SceneT:
        """Turn source views ``(batch, view)`` into what rendering needs."""

    @abstractmethod
    def render_rays(
        self,
        scene: SceneT,
        rays: Rays,
        near_far: Float[Tensor, "batch 2"],
        generator: torch.Generator | None = None,
    ) -> Composite:
        """Render rays ``(batch, ray)``; a generator moves the samples at random."""

    def rays_at_once(
        self, device: torch.device, scenes: int, wanted: int, chunk: int | None = None
    ) -> int:
        """Return how many rays of each of some scenes to render at once, of so many in all."""
        if chunk is None:
            ray_bytes = scenes * self.config.ray_samples * _SAMPLE_BYTES
            chunk = rays_that_fit(device, ray_bytes, wanted)
        return min(chunk, _CPU_RAYS) if device.type == "cpu" else chunk

    @torch.no_grad()
    def render_images(
        self,
        scene: SceneT,
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
        chunk: int | None = None,
        before_chunk: Callable[[], None] | None = None,
    ) -> RenderedImages:
        """Render one image per scene, at most ``chunk`` pixels at a time."""
        device, parts = cameras.c2w.device, []
        chunk = self.rays_at_once(device, len(near_far), math.prod(size), chunk)
        for pixels in pixel_grid(*size, device).split(chunk):
            if before_chunk:
                before_chunk()
            with rendering(device, rays=chunk):
                parts.append(self.render_rays(scene, pixel_rays(cameras, pixels), near_far))

        def image(name: str) -> Tensor:
            values = torch.cat([getattr(part, name) for part in parts], 1)
            return values.unflatten(1, size)

        rgb = image("rgb").movedim(-1, 1).clamp(0, 1)
        return RenderedImages(rgb, image("depth"), image("opacity"))
