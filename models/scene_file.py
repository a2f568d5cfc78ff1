"""Files of fine-tuned scenes: plain data that hold all that rendering needs.

``load_finetuned`` is the way in for whoever only renders; neither the general checkpoint, nor the
backbone, nor the photographs have to be there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.config import ModelConfig
from models.scene_model import SceneMaps, SceneModel
from models.vggt.backbone import NullBackbone
from models.vggt_nerf import RenderedImages, VGGTNeRF
from utils.cameras import Cameras
from utils.checkpoints import load_safely
from utils.config import settings_from_plain
from utils.errors import UserError

_KIND = "vggt_nerf_scene"
_MAPS = ("fine", "coarse", "depth", "confidence", "reliability")


@dataclass(frozen=True)
class FinetunedScene:
    """A scene that can be looked at from anywhere."""

    scene: SceneModel
    name: str
    train_ids: tuple[int, ...]
    test_ids: tuple[int, ...]
    settings: dict[str, Any]
    """All settings of the run."""

    @property
    def cameras(self) -> Cameras:
        """Cameras of the training views, ``(view,)``."""
        return self.scene.cameras

    @property
    def near_far(self) -> Float[Tensor, " 2"]:
        """Depth range of the scene."""
        return self.scene.near_far

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the training views."""
        return self.scene.size

    def render(
        self,
        cameras: Cameras,
        size: tuple[int, int] | None = None,
        near_far: Float[Tensor, " 2"] | None = None,
        chunk: int = 16384,
    ) -> RenderedImages:
        """Render cameras ``(target,)``, each from the training views that serve it best.

        In bfloat16 on a GPU.

        Args:
            cameras: On any device; intrinsics at ``size``.
            size: Height and width; by default the training views'.
            near_far: Depth range; by default the training views'.
            chunk: Rays in one go; bounds the memory.
        """
        device = self.scene.images.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return self.scene.render_images(cameras, size or self.size, chunk, near_far)


@dataclass(frozen=True)
class SceneHeader:
    """What a file says about its scene, beside tensors."""

    scene: str
    train_ids: tuple[int, ...]
    test_ids: tuple[int, ...]
    num_sources: int
    model: ModelConfig
    backbone_fingerprint: str
    settings: dict[str, Any]
    """All settings of the run."""


def scene_content(
    header: SceneHeader, state: dict[str, Tensor], training: dict[str, Any]
) -> dict[str, Any]:
    """Return what a file is to hold.

    Args:
        header: About the scene.
        state: Of ``SceneModel.scene_state``.
        training: What resuming needs; may be empty.
    """
    plain = asdict(header)
    return {_KIND: plain, "state": {k: v.detach() for k, v in state.items()}, "training": training}


def read_scene_file(path: str | Path) -> dict[str, Any]:
    """Read a file and check its kind.

    Raises:
        UserError: There is none, or it is of another kind.
    """
    content = load_safely(path)
    if not {_KIND, "state", "training"} <= set(content):
        raise UserError(
            f"{path}: is not a fine-tuned scene; those are in ckpts/latest.tar of a run"
        )
    return content


def header_of(content: dict[str, Any], path: str | Path) -> SceneHeader:
    """Return what a file's content says about its scene.

    Raises:
        UserError: It was written by another version.
    """
    plain = content[_KIND]
    try:
        return SceneHeader(
            scene=plain["scene"],
            train_ids=tuple(plain["train_ids"]),
            test_ids=tuple(plain["test_ids"]),
            num_sources=plain["num_sources"],
            model=settings_from_plain(ModelConfig, plain["model"], f"{path}: model"),
            backbone_fingerprint=plain["backbone_fingerprint"],
            settings=plain["settings"],
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged or of another version ({error!r})") from error


def scene_from(content: dict[str, Any], header: SceneHeader, path: str | Path) -> SceneModel:
    """Build the scene that a file holds.

    Raises:
        UserError: Its tensors are not those of its settings.
    """
    state = content["state"]
    try:
        with torch.random.fork_rng(devices=[]):
            model = VGGTNeRF(header.model, NullBackbone())
        scene = SceneModel(
            model=model,
            images=state["images"],
            cameras=Cameras(state["intrinsics"], state["c2w"]),
            near_far=state["near_far"],
            maps=SceneMaps(**{name: state[name].clone() for name in _MAPS}),
            num_sources=header.num_sources,
        )
        scene.load_scene_state(state)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"{path}: the tensors do not fit the settings ({error})") from error
    return scene


def load_finetuned(path: str | Path, device: torch.device | str = "cpu") -> FinetunedScene:
    """Load a fine-tuned scene for rendering.

    Args:
        path: ``ckpts/latest.tar`` or ``ckpts/best.tar`` of a run.
        device: Where it is to render.

    Raises:
        UserError: There is no such file, or it is damaged or of another kind.
    """
    content = read_scene_file(path)
    header = header_of(content, path)
    scene = scene_from(content, header, path).requires_grad_(False).eval().to(device)
    return FinetunedScene(scene, header.scene, header.train_ids, header.test_ids, header.settings)
