"""Initial scene of a fine-tuning run: encoded by a general model, or read from a checkpoint."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from datasets.formats.messages import join_names
from datasets.protocols import SceneTask
from datasets.views import Views
from models.baselines.mvsnerf.model import NUM_VIEWS, MVSNeRF
from models.baselines.mvsnerf.scene_model import MVSNeRFScene
from models.baselines.mvsnerf.scene_model import encode_scene as encode_views_with_mvsnerf
from models.checkpoints.baselines import BaselineCheckpoint
from models.checkpoints.general import read_model_file
from models.checkpoints.scene_file import SceneHeader, header_of, read_scene_file, scene_from
from models.config import ModelConfig
from models.scenes.scene_model import SceneModel, TunableScene, encode_views
from models.scenes.source_selection import SizedCameras, choose_sources
from models.vggt.backbone import NullBackbone
from training.config import FineTuningConfig
from training.finetuning.module import FineTuningModule, MVSNeRFTuningModule
from utils.errors import UserError

_GREY_VALUE = 1 / 255
_ENCODED_VIEWS = 3
"""Views in one pass of the encoder: a training view and its nearest others."""


def resume_scene(
    config: FineTuningConfig, split: SceneTask, views: Views
) -> tuple[TunableScene, SceneHeader]:
    """Load the scene of a checkpoint, which must be of the same training views."""
    path = Path(str(config.run.ckpt))
    content = read_scene_file(path)
    header = header_of(content, path)
    if (header.scene, header.train_ids) != (split.scene.name, split.pool):
        raise UserError(
            f"{path}: is of scene {header.scene!r} with training views {list(header.train_ids)}; "
            f"{config.data.datadir} has {split.scene.name!r} with {list(split.pool)}. "
            f"Resume with the --datadir of the run, {header.settings['data']['datadir']}."
        )
    if not content["training"]:
        raise UserError(f"{path}: has no training state; resume from latest.tar in the same folder")
    scene = scene_from(content, header, path).eval().to(views.images.device)
    if problem := _changed_views(scene, views, split):
        raise UserError(
            f"{path}: was trained on other photographs: {problem}. Restore {config.data.datadir}, "
            "or start a new run without --ckpt."
        )
    return scene, replace(header, settings=asdict(config))


def _changed_views(scene: TunableScene, views: Views, split: SceneTask) -> str | None:
    """Describe the difference between the training views and those of a scene, if any."""
    if scene.images.shape != views.images.shape:
        (height, width), (old_height, old_width) = views.size, scene.size
        return f"they are {width}x{height}, and were {old_width}x{old_height}"
    # Versions of image decoders differ by one grey value in single pixels.
    differs = (scene.images - views.images).abs().mean((1, 2, 3)) > _GREY_VALUE
    names = [split.scene.view_names[split.scene.view_ids.index(view)] for view in split.pool]
    if bool(differs.any()):
        changed = [name for name, differ in zip(names, differs.tolist(), strict=True) if differ]
        return f"{len(changed)} of {len(names)} have changed ({join_names(changed)})"
    ours, theirs = views.cameras.c2w, scene.cameras.c2w
    same = torch.allclose(ours, theirs, rtol=0, atol=_GREY_VALUE * theirs.abs().max().item())
    return None if same else "their cameras have changed"


def encode_scene(
    config: FineTuningConfig, split: SceneTask, views: Views
) -> tuple[TunableScene, SceneHeader]:
    """Encode the training views with a general model."""
    run = config.run
    init = read_model_file(run.init_ckpt)
    if isinstance(init, BaselineCheckpoint):
        return _encode_with_mvsnerf(init, config, split, views)
    # Sample beside the most likely planes, too: the volume is trained and can be off by a plane.
    checkpoint = init.with_overrides(
        run.vggt_path, N_planes=run.N_planes, N_samples=run.N_samples, sampling_spread=True
    )
    model, views_per_image = checkpoint.build_model(views.images.device), config.data.n_views
    near_far = split.scene.near_far.to(views.images.device)
    lindisp, count = model.config.rendering.lindisp, len(views.images)
    cameras = SizedCameras(views.cameras, views.size)
    own = torch.arange(count, device=near_far.device)
    together = max(min(_ENCODED_VIEWS, count), 2) - 1
    neighbours = choose_sources(cameras, cameras, near_far, together, lindisp=lindisp, own=own)
    maps = encode_views(model, views, near_far, neighbours)
    # The backbone may be larger than everything else together.
    model.backbone = NullBackbone()
    scene = SceneModel(model, views.images, views.cameras, near_far, maps, views_per_image)
    scene = scene.eval().to(near_far.device)
    scene.refine_depth_prior()
    fingerprint = checkpoint.backbone_fingerprint
    return scene, _header(config, split, checkpoint.model_config, fingerprint)


def _encode_with_mvsnerf(
    init: BaselineCheckpoint, config: FineTuningConfig, split: SceneTask, views: Views
) -> tuple[TunableScene, SceneHeader]:
    run, count = config.run, config.data.n_views
    if init.model != "mvsnerf":
        raise UserError(
            f"{init.path}: {init.model} cannot be fine-tuned; give another --init_ckpt."
        )
    if count != NUM_VIEWS:
        raise UserError(f"--n_views {count}: MVSNeRF renders from {NUM_VIEWS}.")
    checkpoint = init.with_overrides(None, N_planes=run.N_planes, N_samples=run.N_samples)
    model = checkpoint.build_model(views.images.device)
    assert isinstance(model, MVSNeRF)
    scene = encode_views_with_mvsnerf(model, views, split.scene.near_far.to(views.images.device))
    header = _header(config, split, ModelConfig(), "")
    return scene.eval().to(views.images.device), replace(header, mvsnerf=model.config)


def _header(
    config: FineTuningConfig, split: SceneTask, model: ModelConfig, fingerprint: str
) -> SceneHeader:
    return SceneHeader(
        *(split.scene.name, split.pool, split.targets, config.data.n_views),
        model=model,
        backbone_fingerprint=fingerprint,
        settings=asdict(config),
        origin=tuple(split.scene.origin.tolist()),
    )


def tuning_module(
    scene: TunableScene, masks: Bool[Tensor, "view height width"], config: FineTuningConfig
) -> FineTuningModule | MVSNeRFTuningModule:
    """Return the Lightning module that trains a scene."""
    if isinstance(scene, MVSNeRFScene):
        return MVSNeRFTuningModule(scene, masks, config)
    assert isinstance(scene, SceneModel)
    return FineTuningModule(scene, masks, config)
