"""What a run begins with: a general model that has looked at the scene, or a run's own file."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from datasets.formats.registry import is_part_of_folder
from datasets.protocols import SceneSplit
from datasets.views import Views
from models.backbone import NullBackbone
from models.checkpoint import Checkpoint, read_checkpoint
from models.scene_file import SceneHeader, header_of, read_scene_file, scene_from
from models.scene_model import SceneModel, encode_views
from models.source_selection import Frames, choose_sources
from models.vggt_nerf import VGGTNeRF
from training.finetuning_config import FineTuningConfig
from utils.config import differing_settings, settings_from_plain
from utils.errors import UserError

logger = logging.getLogger(__name__)

_SIZES = ("pyramid", "volume", "radiance_field")
_OURS = ("expname", "save_dir", "init_ckpt", "vggt_path", "accelerator", "chunk")
"""Settings of a run that a resumed one may have otherwise, if somebody chooses them."""


@dataclasses.dataclass(frozen=True)
class Start:
    """A scene on its device, and what its files say about it."""

    scene: SceneModel
    header: SceneHeader
    training: dict[str, Any]
    """Where a resumed run stands; empty for a new one."""


def resumed_config(config: FineTuningConfig) -> FineTuningConfig:
    """Return the settings of the run that is resumed, and say once which chosen ones do not count.

    Where it lives and where its data are is as it was, unless somebody chooses otherwise.

    Raises:
        UserError: There is no such file, or it is of another kind.
    """
    path = Path(str(config.run.ckpt))
    settings = header_of(read_scene_file(path), path).settings
    theirs = settings_from_plain(FineTuningConfig, settings, f"{path}: settings")
    usual = FineTuningConfig()
    chosen = {
        name: getattr(config.run, name)
        for name in _OURS
        if getattr(config.run, name) != getattr(usual.run, name)
    }
    run = dataclasses.replace(theirs.run, ckpt=config.run.ckpt, **chosen)
    datadir = config.data.datadir
    chosen_data = datadir != usual.data.datadir and _is_there(datadir)
    if not chosen_data and _is_there(theirs.data.datadir):
        datadir = theirs.data.datadir
    merged = dataclasses.replace(
        theirs, run=run, data=dataclasses.replace(theirs.data, datadir=datadir)
    )
    _warn(path, asdict(config), asdict(merged), asdict(usual))
    return merged


def _is_there(datadir: str) -> bool:
    # A scan of DTU is named as if it was a folder of its own.
    return Path(datadir).exists() or is_part_of_folder("dtu", Path(datadir))


def resume(config: FineTuningConfig, split: SceneSplit, views: Views) -> Start:
    """Load the scene and the state of its run, to the device of the training views.

    Raises:
        UserError: The file is damaged, or belongs to another scene or other views of it.
    """
    path = Path(str(config.run.ckpt))
    content = read_scene_file(path)
    header = header_of(content, path)
    if (header.scene, header.train_ids) != (split.scene.name, split.train_ids):
        raise UserError(
            f"{path}: is of scene {header.scene!r} with training views {list(header.train_ids)}; "
            f"{config.data.datadir} has {split.scene.name!r} with {list(split.train_ids)}. "
            f"Resume with the --datadir of the run, {header.settings['data']['datadir']}."
        )
    if not content["training"]:
        raise UserError(f"{path}: can be rendered, not resumed; resume from latest.tar beside it")
    scene = scene_from(content, header, path).eval().to(views.images.device)
    header = dataclasses.replace(header, settings=asdict(config))
    return Start(scene, header, content["training"])


def start(config: FineTuningConfig, split: SceneSplit, views: Views) -> Start:
    """Let the general model look at the training views, on their device.

    Raises:
        UserError: The general checkpoint is missing, damaged, or its backbone another one.
    """
    run = config.run
    # The volume learns again, and is off by a plane now and then.
    checkpoint = read_checkpoint(run.init_ckpt).with_overrides(
        run.vggt_path, N_planes=run.N_planes, N_samples=run.N_samples, sampling_spread=True
    )
    _report_contradictions(config, checkpoint)
    model = checkpoint.build_model(views.images.device)
    scene = new_scene(model, split, config, views)
    header = SceneHeader(
        scene=split.scene.name,
        train_ids=split.train_ids,
        test_ids=split.test_ids,
        num_sources=config.data.n_views,
        model=checkpoint.model_config,
        backbone_fingerprint=checkpoint.backbone_fingerprint,
        settings=asdict(config),
    )
    return Start(scene, header, {})


def new_scene(
    model: VGGTNeRF, split: SceneSplit, config: FineTuningConfig, views: Views
) -> SceneModel:
    """Encode the training views and add what the scene will learn of its own."""
    near_far = split.scene.near_far.to(views.images.device)
    lindisp, count = model.config.rendering.lindisp, len(views.images)
    frames, own = Frames(views.cameras, views.size), torch.arange(count, device=near_far.device)
    together = max(min(config.run.encode_views, count), 2) - 1
    neighbours = choose_sources(frames, frames, near_far, together, lindisp=lindisp, own=own)
    maps = encode_views(model, views, near_far, neighbours)
    # Its work is done, and it may be larger than everything else together.
    model.backbone = NullBackbone()
    scene = SceneModel(model, views.images, views.cameras, near_far, maps, config.data.n_views)
    scene = scene.eval().to(near_far.device)
    scene.refine_depth_prior()
    return scene


def _report_contradictions(config: FineTuningConfig, checkpoint: Checkpoint) -> None:
    """Name sizes that somebody chose and the checkpoint has otherwise."""
    ours = {part: asdict(getattr(config, part)) for part in _SIZES}
    theirs = {part: asdict(getattr(checkpoint.model_config, part)) for part in _SIZES}
    usual = {part: asdict(getattr(FineTuningConfig(), part)) for part in _SIZES}
    _warn(checkpoint.path, ours, theirs, usual)


def _warn(path: Path, ours: dict[str, Any], theirs: dict[str, Any], usual: dict[str, Any]) -> None:
    """Name the settings that somebody chose, being other than usual, and a file has otherwise."""
    chosen = {name for name, _, _ in differing_settings(ours, usual)}
    rows = [row for row in differing_settings(ours, theirs) if row[0] in chosen]
    if rows:
        told = ", ".join(f"{name}={theirs!r}, not {ours!r}" for name, ours, theirs in rows)
        logger.warning("%s decides: %s", path, told)
