"""The interface of every model: ``encode`` source views once, then ``render_images``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datasets.formats.options import Size
from datasets.views import Views
from utils.cameras import Cameras
from utils.memory import memory_stage


@dataclass(frozen=True)
class RenderedImages:
    """Rendered images of a batch of cameras."""

    rgb: Float[Tensor, "batch 3 height width"]
    depth: Float[Tensor, "batch height width"]
    """Expected z-depth, with the remaining transmittance at the far depth."""
    opacity: Float[Tensor, "batch height width"]


def encoding(sources: Views, training: bool = False) -> AbstractContextManager[None]:
    """Turn an out-of-memory error of ``encode`` into a message that names the flags to lower."""
    count, device = sources.images.shape[1], sources.images.device
    names = ("min_sources_and_max_sources",) if training else ("n_views", "num_source_views")
    counts = dict.fromkeys(names, count)
    return memory_stage("encoding the source views", device, **counts, image_size=sources.size)


def rendering(
    device: torch.device, size: Size | None = None, rays: int | None = None
) -> AbstractContextManager[None]:
    """Turn an out-of-memory error of rendering into a message that names the flags to lower.

    These are the chunk where ``rays`` are given, else the ``size`` of the image.
    """
    if torch.compiler.is_compiling():
        # The context cannot be traced; callers of compiled functions enter it themselves.
        return nullcontext()
    if rays is not None:
        return memory_stage("rendering", device, chunk=rays, val_chunk=rays)
    assert size is not None
    return memory_stage("rendering whole images", device, size=size, image_size=size)


@runtime_checkable
class NovelViewModel(Protocol):
    """A model that evaluation, rendering and training can use.

    The type of the encoded scene is private to the model.
    """

    @property
    def num_samples(self) -> int:
        """Samples per ray."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identify everything that affects renderings apart from ``state_dict``."""
        ...

    def encode(self, sources: Views, near_far: Float[Tensor, "batch 2"]) -> Any:  # noqa: ANN401
        """Encode source views ``(batch, view)``."""
        ...

    def render_images(
        self,
        scene: Any,  # noqa: ANN401
        cameras: Cameras,
        near_far: Float[Tensor, "batch 2"],
        size: tuple[int, int],
        chunk: int | None = None,
        before_chunk: Callable[[], None] | None = None,
    ) -> RenderedImages:
        """Render one image of (height, width) ``size`` per scene.

        ``chunk`` is the maximum of pixels at a time; by default it follows from the free memory.
        The result does not depend on it. ``before_chunk`` is called before each chunk and may raise
        an exception to cancel the image.
        """
        ...

    def with_samples(self, count: int) -> NovelViewModel:
        """Return the model with another number of samples per ray; the weights are shared."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the trainable parameters."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name."""
        ...
