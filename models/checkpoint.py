"""A model or a fine-tuned scene from its file alone.

A checkpoint of general training holds a model's weights and settings. A scene file, of fine-tuning,
holds all that rendering needs: no general checkpoint, backbone or photographs have to be there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.baselines.config import BaselineConfig
from models.baselines.mvsnerf.model import MVSNeRF
from models.baselines.mvsnerf.scene_model import MVSNeRFScene
from models.config import BackboneConfig, ModelConfig
from models.novel_view import RenderedImages
from models.scene_model import SceneMaps, SceneModel
from models.tunable_scene import TunableScene
from models.vggt.backbone import Backbone, FrozenVGGT, NullBackbone, checked_backbone, fingerprint
from models.vggt_nerf import VGGTNeRF
from models.weights import check_finite, check_fit, describe_checkpoint, fill_weights, plain_names
from utils.cameras import Cameras
from utils.checkpoints import load_safely, resolve_checkpoint
from utils.config import settings_from_plain
from utils.errors import UserError, first_line
from utils.settings import wrong_fields

_PREFIX, _NETWORK = "model.", "network."
"""Beginnings of the names of the model's weights, and of those of a trained backbone."""
_SCENE = "vggt_nerf_scene"
_NEEDED = f"{_PREFIX}volume.points.inward.weight"
"""A tensor that models of the present architecture have, both in checkpoints and in scene files."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint of general training says of its model."""

    path: Path
    model_config: ModelConfig
    backbone_config: BackboneConfig
    backbone_fingerprint: str
    weights: dict[str, torch.Tensor]
    network_weights: dict[str, torch.Tensor]
    """Of the backbone, where it was trained, too: what it had learned beyond its own file."""
    step: int | None
    """Training steps that the weights have seen, if the file says."""

    def with_overrides(self, vggt_path: str | None, **rendering: int | float | None) -> Checkpoint:
        """Change where the backbone lies and how rays are sampled; ``None`` changes nothing."""
        backbone = self.backbone_config
        if vggt_path is not None:
            backbone = dataclasses.replace(backbone, vggt_path=vggt_path)
        chosen = {name: value for name, value in rendering.items() if value is not None}
        try:
            settings = dataclasses.replace(self.model_config.rendering, **chosen)
        except ValueError as error:
            raise UserError(str(error)) from error
        model_config = dataclasses.replace(self.model_config, rendering=settings)
        return dataclasses.replace(self, model_config=model_config, backbone_config=backbone)

    def describe(self) -> dict[str, Any]:
        """Return in plain data what a report says of the model."""
        return {
            "path": str(self.path),
            "step": self.step,
            "model": asdict(self.model_config),
            "backbone": asdict(self.backbone_config),
            "backbone_fingerprint": self.backbone_fingerprint,
        }

    def build_model(self, device: torch.device | str = "cpu") -> VGGTNeRF:
        """Build the model on a device, ready to render."""
        backbone = checked_backbone(self.backbone_config, self.backbone_fingerprint, self.path)
        own = _described_weights(self.model_config, backbone, self.path)
        check_fit(own, self.weights, self.path)
        model = VGGTNeRF(self.model_config, backbone)
        fill_weights(model, self.weights, self.path)
        if isinstance(backbone, FrozenVGGT) and self.network_weights:
            fill_weights(backbone.network, self.network_weights, self.path)
            backbone.fingerprint = fingerprint(backbone.network)
        return model.requires_grad_(False).eval().to(device)


def read_checkpoint(path: str) -> Checkpoint:
    """Read a checkpoint of general training, as ``resolve_checkpoint`` takes it."""
    file = resolve_checkpoint(path)
    return checkpoint_from(load_safely(file), file)


def checkpoint_from(content: dict[str, Any], file: Path) -> Checkpoint:
    """Return what the content of a checkpoint of general training says of its model."""
    _check_general(content, file)
    header = content["vggt_nerf"]
    settings, weights = header["settings"], content["state_dict"]
    backbone = settings_from_plain(BackboneConfig, settings["backbone"], f"{file}: backbone")
    return Checkpoint(
        path=file,
        model_config=settings_from_plain(ModelConfig, settings["model"], f"{file}: model"),
        backbone_config=backbone,
        backbone_fingerprint=header["backbone_fingerprint"],
        network_weights=drop_network(weights),
        weights={name.removeprefix(_PREFIX): value for name, value in weights.items()},
        step=content.get("global_step"),
    )


def general_content(path: str | Path) -> dict[str, Any]:
    """Read the file of a checkpoint of general training and check its kind."""
    content = load_safely(path)
    _check_general(content, path)
    return content


def _check_general(content: dict[str, Any], path: str | Path) -> None:
    """Refuse other kinds of files, and give the weights their plain names."""
    try:
        header = content["vggt_nerf"]
        parts = header["settings"]["model"], header["settings"]["backbone"], content["state_dict"]
        whole = all(isinstance(part, dict) for part in parts) and header["backbone_fingerprint"]
        whole = whole and all(isinstance(value, Tensor) for value in parts[2].values())
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(
            f"{path}: is not a checkpoint of general training, but "
            f"{describe_checkpoint(content)}. Give one that train_vggt_nerf_pl.py wrote, or "
            "leave --ckpt out for the shipped one."
        )
    content["state_dict"] = plain_names(content["state_dict"])
    _check_architecture(content["state_dict"], path)


def drop_network(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the weights of a trained backbone out of a checkpoint's; return them, by its names."""
    names = [name for name in weights if name.startswith(_NETWORK)]
    return {name.removeprefix(_NETWORK): weights.pop(name) for name in names}


@dataclass(frozen=True)
class SceneHeader:
    """What a scene file holds beside tensors."""

    scene: str
    train_ids: tuple[int, ...]
    test_ids: tuple[int, ...]
    num_sources: int
    model: ModelConfig
    backbone_fingerprint: str
    settings: dict[str, Any]
    """All settings of the run."""
    origin: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Where the origin of its cameras lies in the coordinates of the data set's files."""
    mvsnerf: BaselineConfig | None = None
    """Of a scene that MVSNeRF renders, in place of ``model``."""


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
        """Render in bfloat16 on a GPU; by default in size and range of the training views."""
        device = self.scene.images.device.type
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return self.scene.render_images(cameras, size or self.scene.size, chunk, near_far)


def scene_content(
    header: SceneHeader, state: dict[str, Tensor], training: dict[str, Any]
) -> dict[str, Any]:
    """Return what a scene file holds; ``training`` is what resuming needs and may be empty."""
    tensors = {name: value.detach() for name, value in state.items()}
    return {_SCENE: asdict(header), "state": tensors, "training": training}


def read_scene_file(path: str | Path) -> dict[str, Any]:
    """Read a scene file and check its kind."""
    content = load_safely(path)
    if not {_SCENE, "state", "training"} <= set(content):
        raise UserError(
            f"{path}: is not a fine-tuned scene, but {describe_checkpoint(content)}; fine-tuned "
            "scenes are in ckpts/latest.tar of a run"
        )
    header, state, training = (content[name] for name in (_SCENE, "state", "training"))
    whole = isinstance(header, dict) and isinstance(state, dict) and isinstance(training, dict)
    if not whole or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path}: is damaged or of another version (its parts are no tensors)")
    if not header.get("mvsnerf"):
        _check_architecture(state, path)
    return content


def header_of(content: dict[str, Any], path: str | Path) -> SceneHeader:
    """Return the header in a scene file's content."""
    plain = content[_SCENE]
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
            mvsnerf=_mvsnerf_config(plain.get("mvsnerf"), path),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: is damaged or of another version ({error!r})") from error
    wrong = wrong_fields(header)
    if not wrong and not 0 < header.num_sources <= len(header.train_ids):
        wrong = [f"num_sources={header.num_sources} of {len(header.train_ids)} train_ids"]
    if wrong or len(header.origin) != 3:
        told = ", ".join(wrong) or f"origin={header.origin!r:.80}"
        raise UserError(f"{path}: is damaged or of another version ({told})")
    return header


def _mvsnerf_config(plain: dict[str, Any] | None, path: str | Path) -> BaselineConfig | None:
    return settings_from_plain(BaselineConfig, plain, f"{path}: mvsnerf") if plain else None


def scene_from(content: dict[str, Any], header: SceneHeader, path: str | Path) -> TunableScene:
    """Build the scene in a scene file's content."""
    state = content["state"]
    if header.mvsnerf is None:
        own = _described_weights(header.model, NullBackbone(), path)
        needed = {f"{_PREFIX}{name}": value for name, value in own.items()}
        once = SceneModel.ENCODED_ONCE
        needed = {k: value for k, value in needed.items() if not k.startswith(once)}
        check_fit(needed, {k: v for k, v in state.items() if k.startswith(_PREFIX)}, path)
    try:
        with torch.random.fork_rng(devices=[]):
            scene = _empty_scene(state, header)
        check_finite(state, path)
        scene.load_scene_state(state)
    except (KeyError, RuntimeError) as error:
        told = f"{path}: the tensors do not fit the settings ({first_line(error)})"
        raise UserError(told) from error
    return scene


def _empty_scene(state: dict[str, Tensor], header: SceneHeader) -> TunableScene:
    """Build a scene whose weights are yet to be loaded."""
    views = state["images"], Cameras(state["intrinsics"], state["c2w"]), state["near_far"]
    if header.mvsnerf:
        parts = state["source_views"], state["volume"].clone()
        return MVSNeRFScene(MVSNeRF(header.mvsnerf), *views, *parts)
    model = VGGTNeRF(header.model, NullBackbone())
    maps = {field.name: state[field.name].clone() for field in dataclasses.fields(SceneMaps)}
    return SceneModel(model, *views, SceneMaps(**maps), header.num_sources)


def _described_weights(
    config: ModelConfig, backbone: Backbone, path: str | Path
) -> dict[str, Tensor]:
    """Return weights without memory of the model that a file's settings describe."""
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return VGGTNeRF(config, backbone).state_dict()
    except (RuntimeError, ValueError, TypeError, ArithmeticError) as error:
        told = f"{path}: its settings describe no model ({first_line(error)})."
        raise UserError(told) from error


def _check_architecture(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights of earlier architectures, whose settings this version may not know either."""
    if _NEEDED not in tensors:
        raise UserError(
            f"{path}: is of an earlier architecture, which this version cannot render; train "
            "again, or go back to the version that can: git checkout cae2b32"
        )


def load_finetuned(path: str | Path, device: torch.device | str = "cpu") -> FinetunedScene:
    """Load ``ckpts/latest.tar`` or ``ckpts/best.tar`` of a fine-tuning run for rendering."""
    content = read_scene_file(path)
    header = header_of(content, path)
    scene = scene_from(content, header, path).requires_grad_(False).eval().to(device)
    return FinetunedScene(scene, header)
