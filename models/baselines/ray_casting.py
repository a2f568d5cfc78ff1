"""The base class of models that render each pixel from evenly spaced samples of its own ray."""

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
"""Maximum rays rendered at once on a CPU, so that their samples stay in its cache."""
_SAMPLE_BYTES = 1 << 13
"""Upper bound of the memory per sample while rendering, for both baselines."""


def sample_depths(
    planes: DepthPlanes, num_rays: int, generator: torch.Generator | None = None
) -> Float[Tensor, "batch ray sample"]:
    """Return ``planes.count`` evenly spaced z-depths from near to far, both included.

    A generator moves each at random, at most halfway to its neighbours.
    """
    near_far = planes.near_far
    steps = torch.linspace(0, 1, planes.count, device=near_far.device)
    steps = steps.expand(len(near_far), num_rays, -1)
    if generator is not None:
        midpoints = (steps[..., 1:] + steps[..., :-1]) / 2
        lower = torch.cat([steps[..., :1], midpoints], -1)
        upper = torch.cat([midpoints, steps[..., -1:]], -1)
        noise = torch.rand(steps.shape, generator=generator, device=steps.device)
        steps = torch.lerp(lower, upper, noise)
    return planes.depths(steps)


class RayCaster(nn.Module, ABC, Generic[SceneT]):
    """A ``NovelViewModel`` that renders every ray independently."""

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def num_samples(self) -> int:
        """Samples per ray."""
        return self.config.ray_samples

    def with_samples(self, count: int) -> RayCaster[SceneT]:
        """Return the model with another number of samples per ray; the weights are shared."""
        model = copy.copy(self)
        model.config = replace(self.config, ray_samples=count)
        return model

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Identify everything that affects renderings apart from ``state_dict``."""

    @abstractmethod
    def encode(self, sources: Views, near_far: Float[Tensor, "batch 2"]) -> SceneT:
        """Encode source views ``(batch, view)``."""

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
        """Return how many of the ``wanted`` rays of each scene to render at once.

        ``chunk`` overrides the number that follows from the free memory.
        """
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
        """Render one image per scene; see ``NovelViewModel``."""
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
