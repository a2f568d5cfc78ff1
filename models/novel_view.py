"""What evaluation, rendering and validation need of a model, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
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
    """Whole images of a batch of cameras."""

    rgb: Float[Tensor, "batch 3 height width"]
    depth: Float[Tensor, "batch height width"]
    """Expected z-depth; light that passes through everything counts as coming from far."""
    opacity: Float[Tensor, "batch height width"]


def encoding(sources: Views, training: bool = False) -> AbstractContextManager[None]:
    """Let an ``encode`` inside that memory does not suffice for say which settings to lower."""
    count, device = sources.images.shape[1], sources.images.device
    of_training = {"min_sources_and_max_sources": count}
    counts = of_training if training else {"n_views": count, "num_source_views": count}
    return memory_stage("encoding the source views", device, **counts, image_size=sources.size)


def rendering(
    device: torch.device, size: Size | None = None, rays: int | None = None
) -> AbstractContextManager[None]:
    """Do so for what takes memory with the size of an image, or with the rays at once."""
    if rays is not None:
        return memory_stage("rendering", device, chunk=rays, val_chunk=rays)
    assert size is not None
    return memory_stage("rendering whole images", device, size=size, image_size=size)


@runtime_checkable
class NovelViewModel(Protocol):
    """A module behind two verbs: ``encode`` once for a set of sources, ``render_images`` after it.

    What ``encode`` returns is the model's own affair.
    """

    @property
    def num_samples(self) -> int:
        """Samples on each ray."""
        ...

    @property
    def fingerprint(self) -> str:
        """Name all that changes a rendering beside ``state_dict``."""
        ...

    def encode(self, sources: Views, near_far: Float[Tensor, "batch 2"]) -> Any:  # noqa: ANN401
        """Turn source views ``(batch, view)`` into what rendering needs."""
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
        """Render one image per scene, at most ``chunk`` pixels at a time.

        Without ``chunk`` as many as free memory takes; it changes no result. An exception that
        ``before_chunk`` raises cancels the image.
        """
        ...

    def with_samples(self, count: int) -> NovelViewModel:
        """Return the model with another number of samples on a ray; it shares all weights."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield what is trained."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the weights by name."""
        ...
