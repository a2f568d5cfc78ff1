"""Scenes that can be rendered from any camera, by a general model or a fine-tuned one."""

from __future__ import annotations

import hashlib
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from datasets.formats.dtu import UNIT
from datasets.posed_scene import PosedScene
from datasets.views import Views
from models.checkpoints.baselines import is_mvsnerf_file
from models.checkpoints.scene_file import load_finetuned
from models.novel_view import NovelViewModel
from models.scenes.scene_model import TunableScene
from models.volume_rendering import SOLID
from utils.camera_rig import SourceIndices, nearest_sources
from utils.cameras import Cameras, LengthUnit

_ENCODED_SETS = 6
"""Size of the cache of encoded source sets; a cross-fade needs two."""

BeforeChunk = Callable[[], None] | None


@dataclass(frozen=True)
class RenderedView:
    """One rendered view, on the CPU."""

    rgb: Float[Tensor, "3 height width"]
    depth: Float[Tensor, "height width"]
    """z-depth in the scene's unit."""
    opacity: Float[Tensor, "height width"]

    @property
    def solid(self) -> Bool[Tensor, "height width"]:
        """Pixels that show a surface, not the background."""
        return self.opacity > SOLID


@dataclass(frozen=True, kw_only=True)
class RenderableScene(ABC):
    """Source views of a scene and a model that renders it from any camera.

    Source indices are indices into ``cameras``.
    """

    name: str
    model: NovelViewModel
    cameras: Cameras
    """Cameras ``(view,)`` of the source views, on the CPU; intrinsics at ``image_size``."""
    view_names: tuple[str, ...]
    image_size: tuple[int, int]
    """Height and width of the source views."""
    near_far: Float[Tensor, " 2"]
    """On the CPU."""
    unit: LengthUnit
    """Unit of displayed depths."""
    n_sources: int
    """Source views per rendering."""
    origin: Float64[Tensor, " 3"] = field(default_factory=lambda: torch.zeros(3).double())
    """Origin of the cameras in the coordinates of the data set's files."""
    chunk: int | None = None
    """Maximum rays rendered at once; None chooses it by the free memory."""
    bf16: bool = False

    @property
    def n_samples(self) -> int:
        """Samples per ray."""
        return self.model.num_samples

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @abstractmethod
    def choose_sources(self, cameras: Cameras, size: tuple[int, int]) -> SourceIndices:
        """Choose ``n_sources`` views for each camera ``(target,)``, as sorted source indices."""

    @abstractmethod
    def images(self, source_indices: Sequence[int]) -> Float[Tensor, "view 3 height width"]:
        """Return the images of source views, on the CPU."""

    @abstractmethod
    def features(self, source_indices: tuple[int, ...]) -> Any:  # noqa: ANN401
        """Return the encoded source views, on the model's device."""

    def prepare(self, source_indices: Sequence[int]) -> None:  # noqa: B027
        """Encode source views ahead of rendering, if the scene needs it."""

    def is_prepared(self, source_indices: Sequence[int]) -> bool:
        """Tell whether source views are encoded."""
        return True

    @torch.no_grad()
    def render(
        self,
        camera: Cameras,
        size: tuple[int, int],
        source_indices: Sequence[int],
        before_chunk: BeforeChunk = None,
    ) -> RenderedView:
        """Render one view of (height, width) ``size`` from source views.

        ``before_chunk`` is as in ``NovelViewModel.render_images``.
        """
        near_far = self.near_far.to(self.device)[None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            features = self.features(tuple(sorted(source_indices)))
            view = (features, camera[None].to(self.device), near_far, size, self.chunk)
            images = self.model.render_images(*view, before_chunk=before_chunk)
        maps = (images.rgb, images.depth, images.opacity)
        return RenderedView(*(values[0].float().cpu() for values in maps))

    def with_sampling(self, near: float, far: float, n_samples: int) -> RenderableScene:
        """Return the scene with another depth range and sample count; the weights are shared."""
        model = self.model.with_samples(n_samples)
        return replace(self, model=model, near_far=torch.tensor([near, far]))

    def fingerprint(self) -> str:
        """Return a hash of everything that affects renderings: weights, views, settings."""
        digest = hashlib.sha256()
        for tensor in [*self._weights(), *vars(self.cameras).values()]:
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        model = (self.model.fingerprint, self.bf16)
        views = (self.name, self.view_names, self.n_sources, self.image_size)
        digest.update(repr((model, views, self.near_far.tolist())).encode())
        return digest.hexdigest()

    def _weights(self) -> Iterable[Tensor]:
        return self.model.state_dict().values()


@dataclass(frozen=True, kw_only=True)
class GeneralScene(RenderableScene):
    """Photographs of a scene, rendered by a general model from the nearest ones."""

    photographs: PosedScene
    view_ids: tuple[int, ...]
    """Ids of the source views in ``photographs``."""
    _encoded: OrderedDict[tuple[float | int, ...], Any] = field(
        default_factory=OrderedDict, repr=False
    )
    """Cache by depth range and source indices, least recently used first."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    """Guards the cache: one thread may encode while another renders."""

    def choose_sources(self, cameras: Cameras, size: tuple[int, int]) -> SourceIndices:
        """Choose the views nearest to each camera."""
        return nearest_sources(cameras, self.cameras, self.near_far, self.n_sources)

    def images(self, source_indices: Sequence[int]) -> Float[Tensor, "view 3 height width"]:
        """Read photographs from disk."""
        return self.source_views(source_indices).images[0].cpu()

    def source_views(self, source_indices: Sequence[int]) -> Views:
        """Read photographs with their cameras as a batch of one scene, on the model's device."""
        ids = [self.view_ids[index] for index in source_indices]
        return self.photographs.load_views(ids).to(self.device)[None]

    @torch.no_grad()
    def prepare(self, source_indices: Sequence[int]) -> None:
        """Encode source views into the cache."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            self.features(tuple(sorted(source_indices)))

    def is_prepared(self, source_indices: Sequence[int]) -> bool:
        """Tell whether source views are in the cache."""
        return self._key(source_indices) in self._encoded

    def features(self, source_indices: tuple[int, ...]) -> Any:  # noqa: ANN401
        """Return encoded source views from the cache, or encode them."""
        key = self._key(source_indices)
        if (features := self._encoded.get(key)) is None:
            near_far = self.near_far.to(self.device)[None]
            features = self.model.encode(self.source_views(source_indices), near_far)
        with self._lock:
            self._encoded[key] = features
            self._encoded.move_to_end(key)
            while len(self._encoded) > _ENCODED_SETS:
                self._encoded.popitem(last=False)
        return features

    def _key(self, source_indices: Sequence[int]) -> tuple[float | int, ...]:
        return (*self.near_far.tolist(), *sorted(source_indices))


@dataclass(frozen=True, kw_only=True)
class TunedScene(RenderableScene):
    """A fine-tuned scene; its source views are the training views."""

    scene: TunableScene

    def choose_sources(self, cameras: Cameras, size: tuple[int, int]) -> SourceIndices:
        """Choose training views as the fine-tuned scene does."""
        chosen = self.scene.sources_of(cameras.to(self.device), size)
        return tuple(tuple(sorted(row)) for row in chosen.tolist())

    def images(self, source_indices: Sequence[int]) -> Float[Tensor, "view 3 height width"]:
        """Return training views."""
        return self.scene.images[list(source_indices)].float().cpu()

    def features(self, source_indices: tuple[int, ...]) -> Any:  # noqa: ANN401
        """Return the maps of training views."""
        return self.scene.gather(torch.tensor([source_indices], device=self.device))

    def _weights(self) -> Iterable[Tensor]:
        return self.scene.scene_state().values()


def general_scene(
    model: NovelViewModel,
    photographs: PosedScene,
    view_ids: Sequence[int],
    n_sources: int = 3,
    **rendering: Any,  # noqa: ANN401
) -> GeneralScene:
    """Build a scene that a general model renders from the photographs ``view_ids``.

    ``rendering`` are the scene's ``chunk`` and ``bf16``.
    """
    indices = [photographs.view_ids.index(view) for view in view_ids]
    return GeneralScene(
        name=photographs.name,
        model=model,
        cameras=photographs.cameras[indices],
        view_names=tuple(photographs.view_names[index] for index in indices),
        image_size=photographs.image_size,
        near_far=photographs.near_far,
        unit=photographs.unit,
        origin=photographs.origin,
        n_sources=min(n_sources, len(view_ids)),
        photographs=photographs,
        view_ids=tuple(view_ids),
        **rendering,
    )


def open_tuned(path: str, device: torch.device, **rendering: Any) -> RenderableScene:  # noqa: ANN401
    """Load a fine-tuned scene; ``rendering`` are the scene's ``chunk`` and ``bf16``."""
    tuned = load_finetuned(path, device)
    settings = tuned.header.settings
    groups = [settings, *(group for group in settings.values() if isinstance(group, dict))]
    of_dtu = any(group.get("dataset_name") == "dtu" for group in groups)
    return TunedScene(
        name=tuned.header.scene,
        model=tuned.scene.model,
        cameras=tuned.scene.cameras.to("cpu"),
        view_names=tuple(str(view) for view in tuned.header.train_ids),
        image_size=tuned.scene.size,
        near_far=tuned.scene.near_far.cpu(),
        unit=UNIT if of_dtu else LengthUnit(),
        origin=torch.tensor(tuned.header.origin, dtype=torch.float64),
        n_sources=min(tuned.scene.num_sources, len(tuned.header.train_ids)),
        scene=tuned.scene,
        **rendering,
    )


def is_tuned_scene(path: str) -> bool:
    """Tell whether a file holds a fine-tuned scene: it ends in .tar and is not MVSNeRF's."""
    file = Path(path)
    return file.suffix == ".tar" and not (file.is_file() and is_mvsnerf_file(file))
