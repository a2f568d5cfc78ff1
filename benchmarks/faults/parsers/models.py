"""Readers of weights, of the settings in checkpoints and of setting files."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from safetensors.torch import save

from benchmarks.faults.parsers.samples import Parser
from models.baselines.config import BaselineConfig
from models.checkpoints.baselines import KIND, MVSNERF_PARTS, baseline_checkpoint
from models.checkpoints.general import checkpoint_from
from models.checkpoints.scene_file import SceneHeader, header_of, read_scene_file
from models.config import BackboneConfig, ModelConfig
from models.vggt.config import OmegaConfig, VGGTConfig
from models.vggt.weights import load_weights, read_config
from training.checkpointing import LastCheckpoint
from training.config import FineTuningConfig, GeneralTrainingConfig, RunConfig, SceneRunConfig
from training.finetuning.run import resumed_config
from training.finetuning.run_log import SceneCheckpointIO
from training.general import checked_resume
from training.resuming import checked_restore
from training.training_scenes import TrainingScenes
from training.vggt.config import MiniTrainingConfig
from training.vggt.run import checked_resume as checked_mini_resume
from utils.checkpoints import load_safely
from utils.config import parse_config
from utils.errors import UserError

_WEIGHT = "model.volume.points.inward.weight"
"""Name of a parameter that all models have."""


def model_parsers() -> list[Parser]:
    """Return the readers of weights, and of the settings in checkpoints and in text files."""
    network = torch.nn.Linear(2, 2)
    pickled = io.BytesIO()
    torch.save(network.state_dict(), pickled)
    settings = {"model": asdict(ModelConfig()), "backbone": asdict(BackboneConfig())}
    header = {"settings": settings, "backbone_fingerprint": "0"}
    own = {"baselines": asdict(BaselineConfig())}
    baseline = {**header, "model": "point_regression", "settings": {**settings, **own}}
    mvsnerf = dict.fromkeys(MVSNERF_PARTS, {})
    scene = SceneHeader("a", (0, 1), (2,), 2, ModelConfig(), "0", settings)
    return [
        *(
            Parser(
                f"{network}/config.json",
                json.dumps(asdict(sizes)).encode(),
                lambda path: read_config(path.parent),
            )
            for network, sizes in (("vggt", VGGTConfig()), ("vggt-omega", OmegaConfig()))
        ),
        Parser(
            "safetensors/model.safetensors",
            save(network.state_dict()),
            lambda path: load_weights(torch.nn.Linear(2, 2), path.parent),
        ),
        Parser(
            "pt/model.pt",
            pickled.getvalue(),
            lambda path: load_weights(torch.nn.Linear(2, 2), path.parent),
        ),
        Parser("last.ckpt", pickled.getvalue(), load_safely),
        Parser("packed.ckpt", _packed(pickled.getvalue()), load_safely),
        Parser("header.json", json.dumps(header).encode(), partial(_read_header, "vggt_nerf")),
        Parser("baseline.json", json.dumps(baseline).encode(), partial(_read_header, KIND)),
        Parser("scene.json", json.dumps(asdict(scene)).encode(), _read_scene_header),
        Parser("mvsnerf.json", json.dumps(mvsnerf).encode(), _read_mvsnerf),
        *_resumed_parsers(header, baseline),
        Parser("settings.txt", b"N_samples = 4\nexpname = a\nmix = [dtu:x]\n", _read_settings),
    ]


def _packed(content: bytes) -> bytes:
    """Return an archive that holds a checkpoint, which is refused with advice to unpack it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("run/last.ckpt", content)
    return buffer.getvalue()


def _resumed_parsers(header: dict[str, object], baseline: dict[str, object]) -> list[Parser]:
    """Return the readers of what a resumed run needs, as JSON in place of a checkpoint."""
    general = {**header, "settings": asdict(GeneralTrainingConfig())}
    resumed = {"vggt_nerf": general, "optimizer_states": []}
    other = {
        KIND: {**baseline, "settings": asdict(GeneralTrainingConfig())},
        "optimizer_states": [],
    }
    mini = {"vggt_mini": asdict(MiniTrainingConfig()), "optimizer_states": []}
    settings = asdict(FineTuningConfig())
    scene = asdict(SceneHeader("a", (0, 1), (2,), 2, ModelConfig(), "0", settings))
    progress = {"step": 3, "optimizer": {}, "average": {}, "bad_steps": 0}
    log = {"curve": [], "seconds": 1.0, "paused": 0.5, "best": {"step": 1, "psnr": 10.0}}
    tuned = {"vggt_nerf_scene": scene, "training": {"progress": progress, **log}}
    return [
        Parser("resumed.json", _json(resumed), _resume_general),
        Parser("resumed_baseline.json", _json(other), _resume_general),
        Parser("resumed_mini.json", _json(mini), _resume_mini),
        Parser("resumed_scene.json", _json(tuned), _resume_scene),
        Parser("trained_on.json", _json(resumed), _read_training_scenes),
    ]


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def _checkpoint(path: Path, weights: str) -> str:
    """Write a checkpoint of the content of a JSON file, with weights; return its path."""
    content = _read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not an object")
    torch.save({**content, weights: {_WEIGHT: torch.zeros(1)}}, f"{path}.ckpt")
    return f"{path}.ckpt"


def _resume_general(path: Path) -> object:
    run = RunConfig(ckpt=_checkpoint(path, "state_dict"))
    return checked_resume(replace(GeneralTrainingConfig(), run=run))


def _resume_mini(path: Path) -> object:
    return checked_mini_resume(MiniTrainingConfig(), _checkpoint(path, "state_dict"))


def _resume_scene(path: Path) -> object:
    file = _checkpoint(path, "state")
    config = resumed_config(FineTuningConfig(run=SceneRunConfig(ckpt=file)))
    header = header_of(read_scene_file(file), path)
    last = LastCheckpoint(path.parent, 1)
    trainer = pl.Trainer(logger=False, accelerator="cpu", callbacks=[last])
    with checked_restore(file, trainer):
        SceneCheckpointIO(path.parent, header).load_checkpoint(file)
    return config


def _read_training_scenes(path: Path) -> object:
    return TrainingScenes.of_general(_checkpoint(path, "state_dict"))


def _read_header(kind: str, path: Path) -> object:
    """Read a checkpoint whose settings are in a JSON file."""
    content = {kind: _read_json(path), "state_dict": {_WEIGHT: torch.zeros(1)}}
    return baseline_checkpoint(content, path) or checkpoint_from(content, path)


def _read_scene_header(path: Path) -> object:
    state = {_WEIGHT: torch.zeros(1)}
    content = {"vggt_nerf_scene": _read_json(path), "state": state, "training": {}}
    torch.save(content, f"{path}.tar")
    return header_of(read_scene_file(f"{path}.tar"), path)


def _read_mvsnerf(path: Path) -> object:
    parts = _read_json(path)
    return baseline_checkpoint(parts if isinstance(parts, dict) else {}, path)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError):
        return None


def _read_settings(path: Path) -> object:
    with contextlib.redirect_stderr(io.StringIO()) as message:
        try:
            return parse_config(GeneralTrainingConfig, ["--config", str(path)])
        except SystemExit as stop:
            raise UserError(f"{path}: {message.getvalue()[-200:]}") from stop
