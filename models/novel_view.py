"""What evaluation, rendering and validation need of a model, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from datasets.views import Views
from utils.cameras import Cameras


@dataclass(frozen=True)
class RenderedImages:
    """Whole images of a batch of cameras."""

    rgb: Float[Tensor, "batch 3 height width"]
    depth: Float[Tensor, "batch height width"]
    """Expected z-depth; light that passes through everything counts as coming from far."""
    opacity: Float[Tensor, "batch height width"]


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
        chunk: int = 8192,
        before_chunk: Callable[[], None] | None = None,
    ) -> RenderedImages:
        """Render one image per scene, at most ``chunk`` pixels at a time.

        An exception that ``before_chunk`` raises cancels the image.
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
