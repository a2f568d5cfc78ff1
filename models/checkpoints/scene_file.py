"""Files of fine-tuned scenes: all that rendering needs, without backbone or photographs."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.baselines.config import BaselineConfig
from models.baselines.mvsnerf.model import MVSNeRF
from models.baselines.mvsnerf.scene_model import MVSNeRFScene
from models.checkpoints.general import PREFIX, check_architecture, described_weights
from models.checkpoints.weights import check_finite, check_fit, describe_checkpoint
from models.config import ModelConfig
from models.novel_view import RenderedImages
from models.scenes.scene_model import SceneMaps, SceneModel, TunableScene
from models.vggt.backbone import NullBackbone
from models.vggt_nerf import VGGTNeRF
from utils.cameras import Cameras
from utils.checkpoints import load_safely
from utils.config import settings_from_plain
from utils.errors import UserError, first_line
from utils.settings import wrong_fields

_SCENE = "vggt_nerf_scene"
"""Key of the header."""


@dataclass(frozen=True)
class SceneHeader:
    """Content of a scene file apart from tensors."""

    scene: str
    train_ids: tuple[int, ...]
    test_ids: tuple[int, ...]
    num_sources: int
    model: ModelConfig
    backbone_fingerprint: str
    settings: dict[str, Any]
    """All settings of the fine-tuning run."""
    origin: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Origin of the cameras in the coordinates of the data set's files."""
    mvsnerf: BaselineConfig | None = None
    """Settings of MVSNeRF if it renders the scene, in place of ``model``."""


@dataclass(frozen=True)
class FinetunedScene:
    """A fine-tuned scene, ready to render."""

    scene: TunableScene
    header: SceneHeader

    def render(
        self,
        cameras: Cameras,
        size: tuple[int, int] | None = None,
        near_far: Float[Tensor, " 2"] | None = None,
        chunk: int | None = None,
    ) -> RenderedImages:
        """Render in bfloat16 on a GPU; size and depth range default to the training views'."""
        device = self.scene.images.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return self.scene.render_images(cameras, size or self.scene.size, chunk, near_far)


def load_finetuned(path: str | Path, device: torch.device | str = "cpu") -> FinetunedScene:
    """Load ``ckpts/latest.tar`` or ``ckpts/best.tar`` of a fine-tuning run for rendering."""
    content = read_scene_file(path)
    header = header_of(content, path)
    scene = scene_from(content, header, path).requires_grad_(False).eval().to(device)
    return FinetunedScene(scene, header)


def scene_content(
    header: SceneHeader, state: dict[str, Tensor], training: dict[str, Any]
) -> dict[str, Any]:
    """Return the content of a scene file; ``training`` is the state for a resume, or empty."""
    tensors = {name: value.detach() for name, value in state.items()}
    return {_SCENE: asdict(header), "state": tensors, "training": training}


def read_scene_file(path: str | Path) -> dict[str, Any]:
    """Read the raw content of a scene file, and refuse other files."""
    content = load_safely(path)
    if not {_SCENE, "state", "training"} <= set(content):
        raise UserError(
            f"{path}: is not a fine-tuned scene, but {describe_checkpoint(content)}; fine-tuned "
            "scenes are in ckpts/latest.tar of a run"
        )
    header, state, training = (content[name] for name in (_SCENE, "state", "training"))
    complete = isinstance(header, dict) and isinstance(state, dict) and isinstance(training, dict)
    if not complete or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: is damaged or of another version (its parts are not tensors)")
    if not header.get("mvsnerf"):
        check_architecture(state, path)
    return content


def header_of(content: dict[str, Any], path: str | Path) -> SceneHeader:
    """Parse the header in a scene file's content."""
    plain = content[_SCENE]
    mvsnerf = plain.get("mvsnerf")
    try:
        header = SceneHeader(
            scene=plain["scene"],
            train_ids=tuple(plain["train_ids"]),
            test_ids=tuple(plain["test_ids"]),
            num_sources=plain["num_sources"],
            model=settings_from_plain(ModelConfig, plain["model"], f"{path}: model"),
            backbone_fingerprint=plain["backbone_fingerprint"],
            settings=plain["settings"],
            origin=tuple(plain.get("origin", (0.0, 0.0, 0.0))),
            mvsnerf=settings_from_plain(BaselineConfig, mvsnerf, f"{path}: mvsnerf")
            if mvsnerf
            else None,
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged or of another version ({error!r})") from error
    problems = wrong_fields(header)
    if not problems and not 0 < header.num_sources <= len(header.train_ids):
        problems = [f"num_sources={header.num_sources} of {len(header.train_ids)} train_ids"]
    if not problems and len(header.origin) != 3:
        problems = [f"origin={header.origin!r:.80}"]
    if problems:
        raise UserError(f"{path}: is damaged or of another version ({', '.join(problems)})")
    return header


def scene_from(content: dict[str, Any], header: SceneHeader, path: str | Path) -> TunableScene:
    """Build the scene in a scene file's content."""
    state = content["state"]
    if header.mvsnerf is None:
        described = described_weights(header.model, NullBackbone(), path)
        own = {f"{PREFIX}{name}": value for name, value in described.items()}
        own = {k: v for k, v in own.items() if not k.startswith(SceneModel.ENCODER_PREFIXES)}
        check_fit(own, {k: v for k, v in state.items() if k.startswith(PREFIX)}, path)
    try:
        with torch.random.fork_rng(devices=[]):
            scene = _uninitialised_scene(state, header)
        check_finite(state, path)
        scene.load_scene_state(state)
    except (KeyError, RuntimeError) as error:
        problem = f"{path}: the tensors do not fit the settings ({first_line(error)})"
        raise UserError(problem) from error
    return scene


def _uninitialised_scene(state: dict[str, Tensor], header: SceneHeader) -> TunableScene:
    """Build a scene whose weights are still to be loaded."""
    views = state["images"], Cameras(state["intrinsics"], state["c2w"]), state["near_far"]
    if header.mvsnerf:
        parts = state["source_views"], state["volume"].clone()
        return MVSNeRFScene(MVSNeRF(header.mvsnerf), *views, *parts)
    model = VGGTNeRF(header.model, NullBackbone())
    maps = {field.name: state[field.name].clone() for field in dataclasses.fields(SceneMaps)}
    return SceneModel(model, *views, SceneMaps(**maps), header.num_sources)
