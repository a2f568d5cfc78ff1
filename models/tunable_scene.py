"""A model and one scene, some of whose maps or volumes are parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from datasets.views import join
from models.novel_view import NovelViewModel, RenderedImages
from utils.cameras import Cameras

ModelT = TypeVar("ModelT", bound=NovelViewModel)


class TunableScene(nn.Module, ABC, Generic[ModelT]):
    """Renders cameras of one scene from some of its training views."""

    ENCODED_ONCE: ClassVar[tuple[str, ...]]
    """Beginnings of the names of weights whose work is done once the scene is encoded."""
    images: Tensor
    near_far: Tensor

    def __init__(
        self,
        model: ModelT,
        images: Float[Tensor, "view 3 height width"],
        cameras: Cameras,
        near_far: Float[Tensor, " 2"],
        num_sources: int,
    ) -> None:
        """Render from ``num_sources`` of the training views, if there are as many."""
        super().__init__()
        self.model = model
        fixed = {
            "images": images,
            "intrinsics": cameras.intrinsics,
            "c2w": cameras.c2w,
            "near_far": near_far,
        }
        for name, value in fixed.items():
            self.register_buffer(name, value)
        self.num_sources = num_sources

    @property
    def cameras(self) -> Cameras:
        """Cameras of the training views."""
        return Cameras(self.get_buffer("intrinsics"), self.get_buffer("c2w"))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the training views."""
        return self.images.shape[-2], self.images.shape[-1]

    @abstractmethod
    def sources_of(self, cameras: Cameras, size: tuple[int, int]) -> Int[Tensor, "target source"]:
        """Choose the sources of any cameras ``(target,)``."""

    @abstractmethod
    def gather(self, sources: Int[Tensor, "target source"]) -> Any:  # noqa: ANN401
        """Return what the model reads of some targets' sources, one scene of a batch for each."""

    @torch.no_grad()
    def render_images(
        self,
        cameras: Cameras,
        size: tuple[int, int],
        chunk: int | None = None,
        near_far: Float[Tensor, " 2"] | None = None,
    ) -> RenderedImages:
        """Render whole images, ``chunk`` rays at once; by default in the training views' range.

        Without ``chunk`` as many as free memory takes.
        """
        cameras = cameras.to(self.images.device)
        bounds = (self.near_far if near_far is None else near_far.to(self.near_far))[None]
        parts = []
        for target, sources in enumerate(self.sources_of(cameras, size)):
            camera = cameras[target : target + 1]
            scene = self.gather(sources[None])
            parts.append(self.model.render_images(scene, camera, bounds, size, chunk))
        return join(parts)

    def scene_state(self) -> dict[str, Tensor]:
        """Return all that rendering needs, by name; shares memory with the model."""
        own = self.state_dict()
        return {name: own[name] for name in own if not name.startswith(self.ENCODED_ONCE)}

    def load_scene_state(self, state: dict[str, Tensor]) -> None:
        """Take what ``scene_state`` returned; other tensors are a ``RuntimeError``."""
        found = self.load_state_dict(state, strict=False)
        missing = [name for name in found.missing_keys if not name.startswith(self.ENCODED_ONCE)]
        if missing or found.unexpected_keys:
            raise RuntimeError(f"missing {missing[:3]}, unexpected {found.unexpected_keys[:3]}")
