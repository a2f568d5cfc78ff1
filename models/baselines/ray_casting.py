"""What models without a decoder share: samples spread over a ray, images ray by ray."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from models.novel_view import RenderedImages
from models.ray_sampling import DepthPlanes
from models.volume_rendering import Composite
from utils.cameras import Cameras, Rays, pixel_grid, pixel_rays

_CPU_RAYS = 256
"""Most rays at once on a CPU: more take longer, since they leave its cache."""


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


def render_pixels(
    render: Callable[[Rays], Composite],
    cameras: Cameras,
    size: tuple[int, int],
    chunk: int,
    before_chunk: Callable[[], None] | None = None,
) -> RenderedImages:
    """Render whole images of cameras ``(batch,)``, at most ``chunk`` pixels at a time."""
    device = cameras.c2w.device
    if device.type == "cpu":
        chunk = min(chunk, _CPU_RAYS)
    parts = []
    for pixels in pixel_grid(*size, device).split(chunk):
        if before_chunk:
            before_chunk()
        parts.append(render(pixel_rays(cameras, pixels)))

    def image(name: str) -> Tensor:
        values = torch.cat([getattr(part, name) for part in parts], 1)
        return values.unflatten(1, size)

    rgb = image("rgb").movedim(-1, 1).clamp(0, 1)
    return RenderedImages(rgb, image("depth"), image("opacity"))
