"""What videos, geometry and the viewer need of a scene, and a general model's way to give it."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from apps.rendering.source_selection import Places, nearest_sources
from datasets.posed_scene import PosedScene
from evaluation.scores import SOLID
from models.projection import SceneFeatures
from models.vggt_nerf import RenderedImages, VGGTNeRF
from utils.cameras import Cameras
from utils.depth_pictures import LengthUnit

_REMEMBERED = 4
"""Source sets that stay encoded: those of two keyframes, and some to go back to."""

BeforeChunk = Callable[[], None]


@dataclass(frozen=True)
class Picture:
    """One rendered view, on the CPU."""

    rgb: Float[Tensor, "3 height width"]
    depth: Float[Tensor, "height width"]
    """z-depth, in the scene's unit."""
    opacity: Float[Tensor, "height width"]

    @property
    def solid(self) -> Bool[Tensor, "height width"]:
        """Pixels that show a surface and thus have a depth."""
        return self.opacity > SOLID


@runtime_checkable
class RenderableScene(Protocol):
    """A scene that can be looked at from anywhere.

    Whoever has one can make videos, geometry and the viewer of it: a general model with a scene's
    photographs is one, a scene that a model was fine-tuned on can be another.
    """

    @property
    def name(self) -> str:
        """What to call it."""
        ...

    @property
    def cameras(self) -> Cameras:
        """The source views, one batch axis, on the CPU; intrinsics at ``image_size``."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the source views."""
        ...

    @property
    def near_far(self) -> Float[Tensor, " 2"]:
        """Nearest and farthest z-depth, on the CPU."""
        ...

    @property
    def n_sources(self) -> int:
        """How many source views one rendering reads; at most as many as there are."""
        ...

    @property
    def n_samples(self) -> int:
        """Samples on each ray."""
        ...

    @property
    def unit(self) -> LengthUnit:
        """The unit in which to show depths."""
        ...

    def fingerprint(self) -> str:
        """Return a text that differs for whatever renders differently: weights, views, settings."""
        ...

    def choose_sources(self, cameras: Cameras, size: tuple[int, int]) -> Places:
        """Choose, for each of some cameras, the ``n_sources`` views to read, by their places.

        Args:
            cameras: One batch axis; intrinsics at ``size``.
            size: Height and width.
        """
        ...

    def images(self, places: Sequence[int]) -> Float[Tensor, "view 3 height width"]:
        """Return source images by their place in ``cameras``, on the CPU."""
        ...

    def render(
        self,
        camera: Cameras,
        size: tuple[int, int],
        places: Sequence[int],
        before_chunk: BeforeChunk | None = None,
    ) -> Picture:
        """Render one view.

        Args:
            camera: No batch axis; intrinsics at ``size``.
            size: Height and width.
            places: Which source views to read; ``n_sources`` of them. Their order counts nothing.
            before_chunk: Called now and then; whatever it raises gives the picture up.
        """
        ...

    def with_sampling(self, near: float, far: float, n_samples: int) -> RenderableScene:
        """Return the same scene, seen from ``near`` to ``far`` with other samples on a ray."""
        ...


def only_picture(images: RenderedImages) -> Picture:
    """Take the one picture of a batch to the CPU."""
    return Picture(
        images.rgb[0].float().cpu(),
        images.depth[0].float().cpu(),
        images.opacity[0].float().cpu(),
    )


def with_samples(model: VGGTNeRF, n_samples: int) -> VGGTNeRF:
    """Return the model with other samples on a ray; it shares all weights."""
    model = copy.copy(model)
    rendering = replace(model.config.rendering, N_samples=n_samples)
    model.config = replace(model.config, rendering=rendering)
    return model


@dataclass(frozen=True)
class RenderSettings:
    """How a general model renders."""

    n_sources: int = 3
    chunk: int = 8192
    bf16: bool = False


@dataclass(frozen=True)
class GeneralScene:
    """A scene's photographs, and a general model that reads the nearest of them."""

    model: VGGTNeRF
    scene: PosedScene
    pool: tuple[int, ...]
    """Views that may be read, by their ids."""
    settings: RenderSettings = RenderSettings()
    unit: LengthUnit = LengthUnit()
    device: torch.device = torch.device("cpu")
    _encoded: OrderedDict[tuple[int, ...], SceneFeatures] = field(
        default_factory=OrderedDict, repr=False
    )
    """The source sets used last."""

    @property
    def name(self) -> str:
        """The scene's own name."""
        return self.scene.name

    @property
    def cameras(self) -> Cameras:
        """Cameras of the pool."""
        return self.scene.cameras[[self.scene.view_ids.index(view) for view in self.pool]]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the photographs as they are read."""
        return self.scene.image_size

    @property
    def near_far(self) -> Float[Tensor, " 2"]:
        """The scene's range."""
        return self.scene.near_far

    @property
    def n_sources(self) -> int:
        """As chosen, or all views if they are fewer."""
        return min(self.settings.n_sources, len(self.pool))

    @property
    def n_samples(self) -> int:
        """As the model's settings have it."""
        return self.model.config.rendering.N_samples

    def fingerprint(self) -> str:
        """Hash of weights, settings, cameras and names of views."""
        digest = hashlib.sha256()
        for tensor in [*self.model.state_dict().values(), *vars(self.cameras).values()]:
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        known = (self.model.config, self.model.backbone.fingerprint, self.settings.bf16)
        views = (self.name, self.scene.view_names, self.pool, self.n_sources, self.image_size)
        digest.update(repr((known, views, self.near_far.tolist())).encode())
        return digest.hexdigest()

    def choose_sources(self, cameras: Cameras, size: tuple[int, int]) -> Places:
        """Choose the nearest views."""
        return nearest_sources(cameras, self.cameras, self.near_far, self.n_sources)

    def images(self, places: Sequence[int]) -> Float[Tensor, "view 3 height width"]:
        """Read photographs.

        Raises:
            UserError: A file is damaged.
        """
        return self.scene.load_views([self.pool[place] for place in places]).images

    @torch.no_grad()
    def render(
        self,
        camera: Cameras,
        size: tuple[int, int],
        places: Sequence[int],
        before_chunk: BeforeChunk | None = None,
    ) -> Picture:
        """Render one view from chosen sources, which stay encoded for a while.

        Raises:
            UserError: A file is damaged.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
            near_far = self.near_far.to(self.device)[None]
            seen = self._encode(tuple(sorted(places)), near_far)
            target = Cameras(camera.intrinsics[None], camera.c2w[None]).to(self.device)
            images = self.model.render_images(
                *(seen, target, near_far, size, self.settings.chunk), before_chunk=before_chunk
            )
        return only_picture(images)

    def with_sampling(self, near: float, far: float, n_samples: int) -> GeneralScene:
        """Share weights and photographs, but not what was encoded for another range."""
        model = with_samples(self.model, n_samples)
        scene = replace(self.scene, near_far=torch.tensor([near, far]))
        same_range = self.near_far.tolist() == scene.near_far.tolist()
        encoded = self._encoded if same_range else OrderedDict()
        return replace(self, model=model, scene=scene, _encoded=encoded)

    def forget_sources(self) -> None:
        """Free what was encoded."""
        self._encoded.clear()

    def _encode(self, places: tuple[int, ...], near_far: Float[Tensor, "batch 2"]) -> SceneFeatures:
        if places not in self._encoded:
            views = self.scene.load_views([self.pool[place] for place in places]).to(self.device)
            batched = replace(
                views,
                images=views.images[None],
                cameras=Cameras(views.cameras.intrinsics[None], views.cameras.c2w[None]),
                depths=views.depths[None],
                masks=views.masks[None],
            )
            self._encoded[places] = self.model.encode(batched, near_far)
            while len(self._encoded) > _REMEMBERED:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(places)
        return self._encoded[places]
