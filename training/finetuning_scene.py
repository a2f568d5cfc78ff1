"""The scene of a fine-tuning run: encoded by a general model, or from the run's file."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from datasets.formats.messages import join_names
from datasets.protocols import SceneTask
from datasets.views import Views
from models.baselines.checkpoint import BaselineCheckpoint
from models.baselines.mvsnerf.model import NUM_VIEWS, MVSNeRF
from models.baselines.mvsnerf.scene_model import MVSNeRFScene
from models.baselines.mvsnerf.scene_model import encode_scene as encode_views_with_mvsnerf
from models.checkpoint import SceneHeader, header_of, read_scene_file, scene_from
from models.config import ModelConfig
from models.model_file import read_model_file
from models.scene_model import Frames, SceneModel, choose_sources, encode_views
from models.tunable_scene import TunableScene
from models.vggt.backbone import NullBackbone
from training.config import FineTuningConfig
from training.finetuning_module import FineTuningModule, MVSNeRFTuningModule
from utils.errors import UserError

_GREY_VALUE = 1 / 255
ENCODED_TOGETHER = 3
"""Views that are encoded together: each training view with its nearest others."""


def resume_scene(
    config: FineTuningConfig, split: SceneTask, views: Views
) -> tuple[TunableScene, SceneHeader]:
    """Load a run's scene to the device of the training views."""
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
        raise UserError(f"{path}: can be rendered, not resumed; resume from latest.tar beside it")
    scene = scene_from(content, header, path).eval().to(views.images.device)
    if problem := _changed_views(scene, views, split):
        raise UserError(
            f"{path}: was trained on other photographs: {problem}. Restore {config.data.datadir}, "
            "or start a new run without --ckpt."
        )
    return scene, dataclasses.replace(header, settings=asdict(config))


def _changed_views(scene: TunableScene, views: Views, split: SceneTask) -> str | None:
    """Say in what the training views differ from those in a run's scene, or return None."""
    if scene.images.shape != views.images.shape:
        (height, width), (old_height, old_width) = views.size, scene.size
        return f"they are {width}x{height}, and were {old_width}x{old_height}"
    # Versions of a decoder differ by one grey value here and there.
    others = (scene.images - views.images).abs().mean((1, 2, 3)) > _GREY_VALUE
    names = [split.scene.view_names[split.scene.view_ids.index(view)] for view in split.pool]
    if bool(others.any()):
        changed = [name for name, other in zip(names, others.tolist(), strict=True) if other]
        return f"{len(changed)} of {len(names)} are others ({join_names(changed)})"
    ours, theirs = views.cameras.c2w, scene.cameras.c2w
    same = torch.allclose(ours, theirs, rtol=0, atol=_GREY_VALUE * theirs.abs().max().item())
    return None if same else "their cameras are others"


def encode_scene(
    config: FineTuningConfig, split: SceneTask, views: Views
) -> tuple[TunableScene, SceneHeader]:
    """Encode the training views with the general model, on their device."""
    run = config.run
    found = read_model_file(run.init_ckpt)
    if isinstance(found, BaselineCheckpoint):
        return _encode_with_mvsnerf(found, config, split, views)
    # The volume learns again, and is off by a plane now and then.
    checkpoint = found.with_overrides(
        run.vggt_path, N_planes=run.N_planes, N_samples=run.N_samples, sampling_spread=True
    )
    model, views_per_image = checkpoint.build_model(views.images.device), config.data.n_views
    near_far = split.scene.near_far.to(views.images.device)
    lindisp, count = model.config.rendering.lindisp, len(views.images)
    frames, own = Frames(views.cameras, views.size), torch.arange(count, device=near_far.device)
    together = max(min(ENCODED_TOGETHER, count), 2) - 1
    neighbours = choose_sources(frames, frames, near_far, together, lindisp=lindisp, own=own)
    maps = encode_views(model, views, near_far, neighbours)
    # No longer needed, and it may be larger than everything else together.
    model.backbone = NullBackbone()
    scene = SceneModel(model, views.images, views.cameras, near_far, maps, views_per_image)
    scene = scene.eval().to(near_far.device)
    scene.refine_depth_prior()
    return scene, SceneHeader(
        *(split.scene.name, split.pool, split.targets, views_per_image),
        model=checkpoint.model_config,
        backbone_fingerprint=checkpoint.backbone_fingerprint,
        settings=asdict(config),
        origin=tuple(split.scene.origin.tolist()),
    )


def _encode_with_mvsnerf(
    found: BaselineCheckpoint, config: FineTuningConfig, split: SceneTask, views: Views
) -> tuple[TunableScene, SceneHeader]:
    run, count = config.run, config.data.n_views
    if found.model != "mvsnerf":
        raise UserError(f"{found.path}: {found.model} is not fine-tuned; give another --init_ckpt.")
    if count != NUM_VIEWS:
        raise UserError(f"--n_views {count}: MVSNeRF renders from {NUM_VIEWS}.")
    checkpoint = found.with_overrides(None, N_planes=run.N_planes, N_samples=run.N_samples)
    model = checkpoint.build_model(views.images.device)
    assert isinstance(model, MVSNeRF)
    scene = encode_views_with_mvsnerf(model, views, split.scene.near_far.to(views.images.device))
    return scene.eval().to(views.images.device), SceneHeader(
        *(split.scene.name, split.pool, split.targets, count),
        model=ModelConfig(),
        backbone_fingerprint="",
        settings=asdict(config),
        origin=tuple(split.scene.origin.tolist()),
        mvsnerf=model.config,
    )


def tuning_module(
    scene: TunableScene, masks: Bool[Tensor, "view height width"], config: FineTuningConfig
) -> FineTuningModule | MVSNeRFTuningModule:
    """Return what trains a scene."""
    if isinstance(scene, MVSNeRFScene):
        return MVSNeRFTuningModule(scene, masks, config)
    assert isinstance(scene, SceneModel)
    return FineTuningModule(scene, masks, config)
