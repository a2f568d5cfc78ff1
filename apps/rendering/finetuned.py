"""A fine-tuned scene as a scene that can be rendered: its file holds all that is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apps.rendering.scene import (
    BeforeChunk,
    Picture,
    RenderSettings,
    only_picture,
    with_samples,
)
from apps.rendering.source_selection import Places
from datasets.formats.dtu import UNIT
from models.scene_file import load_finetuned
from models.scene_model import SceneModel
from models.vggt_nerf import VGGTNeRF
from utils.cameras import Cameras
from utils.depth_pictures import LengthUnit


@dataclass(frozen=True)
class TunedScene:
    """A scene that a model was fine-tuned on; its sources are the training views."""

    name: str
    scene: SceneModel
    model: VGGTNeRF
    """The scene's own, or one that samples otherwise with the same weights."""
    near_far: Float[Tensor, " 2"]
    settings: RenderSettings
    unit: LengthUnit

    @property
    def cameras(self) -> Cameras:
        """Cameras of the training views."""
        return self.scene.cameras.to("cpu")

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the training views."""
        return self.scene.size

    @property
    def n_sources(self) -> int:
        """As the scene was fine-tuned."""
        return min(self.scene.num_sources, len(self.scene.images))

    @property
    def n_samples(self) -> int:
        """As the model's settings have it."""
        return self.model.config.rendering.N_samples

    def fingerprint(self) -> str:
        """Hash of weights, views and settings."""
        digest = hashlib.sha256()
        for tensor in self.scene.scene_state().values():
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        known = (self.model.config, self.settings.bf16, self.n_sources, self.near_far.tolist())
        digest.update(repr(known).encode())
        return digest.hexdigest()

    def choose_sources(self, cameras: Cameras, size: tuple[int, int]) -> Places:
        """Choose the training views that serve each camera best."""
        chosen = self.scene.sources_of(cameras.to(self.scene.images.device), size)
        return tuple(tuple(sorted(row)) for row in chosen.tolist())

    def images(self, places: Sequence[int]) -> Float[Tensor, "view 3 height width"]:
        """Return training views."""
        return self.scene.images[list(places)].float().cpu()

    @torch.no_grad()
    def render(
        self,
        camera: Cameras,
        size: tuple[int, int],
        places: Sequence[int],
        before_chunk: BeforeChunk | None = None,
    ) -> Picture:
        """Render one view from chosen training views."""
        device = self.scene.images.device
        target = Cameras(camera.intrinsics[None], camera.c2w[None]).to(device)
        near_far = self.near_far.to(device)[None]
        with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.bf16):
            seen = self.scene.gather(torch.tensor([sorted(places)], device=device))
            images = self.model.render_images(
                *(seen, target, near_far, size, self.settings.chunk),
                before_chunk=before_chunk,
            )
        return only_picture(images)

    def with_sampling(self, near: float, far: float, n_samples: int) -> TunedScene:
        """Share all weights."""
        model = with_samples(self.model, n_samples)
        return replace(self, model=model, near_far=torch.tensor([near, far]))


def open_tuned(
    path: str, settings: RenderSettings, n_samples: int | None, device: torch.device
) -> TunedScene:
    """Read a fine-tuned scene.

    Raises:
        UserError: The file is damaged, or of another kind or version.
    """
    tuned = load_finetuned(path, device)
    scene = tuned.scene
    near, far = scene.near_far.tolist()
    opened = TunedScene(
        name=tuned.name,
        scene=scene,
        model=scene.model,
        near_far=torch.tensor([near, far]),
        settings=settings,
        unit=_unit(tuned.settings),
    )
    return opened.with_sampling(near, far, n_samples) if n_samples else opened


def is_tuned_scene(path: str) -> bool:
    """Tell by its name whether a file holds a fine-tuned scene."""
    return Path(path).suffix == ".tar"


def _unit(settings: dict[str, Any]) -> LengthUnit:
    """Read from the run's settings whether the scene is one of DTU's."""
    groups = [settings, *(group for group in settings.values() if isinstance(group, dict))]
    if any(group.get("dataset_name") == "dtu" for group in groups):
        return UNIT
    return LengthUnit()
