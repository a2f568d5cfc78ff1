"""Tiny runs of both trainings."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_models import TINY_MODEL, random_backbone, save_general
from training_runs import as_flags

import train_vggt_nerf_finetuning_pl
from models.config import FeaturePyramidConfig, RenderConfig
from models.vggt.backbone import load_backbone
from models.vggt_nerf import VGGTNeRF
from training.config import FineTuningConfig, GeneralTrainingConfig
from training.finetuning.module import FineTuningModule
from training.finetuning.run import run_finetuning
from training.general import run_general_training
from training.general_module import GeneralModule
from utils.cameras import Cameras
from utils.config import parse_config

GENERAL = {
    "random_backbone": "true",
    "backbone_size": 56,
    "feature_channels": 8,
    "coarse_channels": 8,
    "pyramid_width": 16,
    "field_width": 8,
    "similarity_groups": 2,
    "ray_heads": 2,
    "view_width": 8,
    "volume_channels": 2,
    "volume_groups": 2,
    "fine_planes": 3,
    "composited_channels": 4,
    "N_planes": 8,
    "N_samples": 4,
    "batch_size": 144,
    "source_planes_weight": 0.05,
    "num_workers": 0,
    "num_nearest": 4,
    "min_sources": 2,
    "max_sources": 3,
    "source_dropout": 0.3,
    "warmup_steps": 3,
    "batches_per_epoch": 3,
    "num_epochs": 3,
    "save_every": 2,
    "val_chunk": 2000,
    "device": "cpu",
    "devices": 1,
}
SCENE = {
    "n_views": 3,
    "batch_size": 96,
    "targets_per_step": 1,
    "spare_sources": 1,
    "refine_every": 2,
    "num_steps": 6,
    "val_every": 3,
    "save_every": 2,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def tiny_flags(tiny_dtu, tiny_backbone):
    """Flags of a general training that takes a second or two."""
    where = {"datadir": tiny_dtu, "vggt_path": tiny_backbone}
    widths = "--volume_widths 8 8 --fine_widths 8 --decoder_widths 8 8"
    return [*widths.split(), *as_flags(where | GENERAL)]


@pytest.fixture(scope="session")
def general_checkpoint(tiny_backbone, tmp_path_factory):
    """Of a model with random weights and a width that fine-tuning is quick with."""
    config = replace(
        TINY_MODEL,
        pyramid=FeaturePyramidConfig(feature_channels=8, coarse_channels=8, pyramid_width=16),
        rendering=RenderConfig(N_planes=12, N_samples=4),
    )
    torch.manual_seed(0)
    model = VGGTNeRF(config, load_backbone(random_backbone(tiny_backbone))).eval()
    return save_general(model, tiny_backbone, tmp_path_factory.mktemp("ckpt"))


@pytest.fixture(scope="session")
def scene_flags(general_checkpoint, tiny_dtu):
    """Flags of a fine-tuning that takes a second or two."""
    return as_flags({"datadir": tiny_dtu / "scan2", "init_ckpt": general_checkpoint} | SCENE)


@pytest.fixture
def run_main(capsys, caplog):
    """Run a script; returns its status and what it said."""

    def run(main, *argv):
        try:
            status = main([str(text) for text in argv])
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().err + caplog.text

    return run


@pytest.fixture
def run_finetuning_script(run_main, scene_flags, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def run(*argv, **flags):
        flags = [*scene_flags, "--save_dir", tmp_path / "runs", *as_flags(flags), *argv]
        return run_main(train_vggt_nerf_finetuning_pl.main, *flags)

    return run


@pytest.fixture
def finetune(run_finetuning_script):
    """Run the script; returns its status."""
    return lambda *argv, **flags: run_finetuning_script(*argv, **flags)[0]


@pytest.fixture
def refused(run_finetuning_script):
    """Run the script; its refusal must hold the words."""

    def check(*words, argv=(), **flags):
        status, said = run_finetuning_script(*argv, **flags)
        assert status == 2 and all(str(word) in said for word in words), said

    return check


@pytest.fixture(scope="session")
def general(tiny_flags):
    """General training, as ``train`` runs it: 9 steps, 3 an epoch."""
    return SimpleNamespace(
        flags=tiny_flags,
        run=lambda argv: run_general_training(parse_config(GeneralTrainingConfig, argv)),
        module=GeneralModule,
        script="train_vggt_nerf_pl.py",
        last="vggt_mvs_general_train_v1/ckpts/last.ckpt",
        steps=9,
        step_of=lambda content: content["global_step"],
        state_of=lambda content: [content[part] for part in ("state_dict", "optimizer_states")],
    )


@pytest.fixture(scope="session")
def scene(scene_flags):
    """Fine-tuning, as ``train`` runs it: 6 steps, a validation after 3."""
    return SimpleNamespace(
        flags=scene_flags,
        run=lambda argv: run_finetuning(parse_config(FineTuningConfig, argv)),
        module=FineTuningModule,
        script="train_vggt_nerf_finetuning_pl.py",
        last="scan2/vggt_finetune_scan2/ckpts/latest.tar",
        steps=6,
        step_of=lambda content: content["training"]["progress"]["step"],
        state_of=lambda content: [
            *(content["state"], content["training"]["progress"]),
            [row["psnr"] for row in content["training"]["curve"]],
        ],
    )


@pytest.fixture
def arc_cameras():
    """Build cameras on an arc around the origin, 4 away, that look at it."""

    def build(angles, size=(32, 40)):
        angles = torch.as_tensor(angles, dtype=torch.float32)
        c2w = torch.eye(4).repeat(len(angles), 1, 1)
        c2w[:, 0, 0] = c2w[:, 2, 2] = angles.cos()
        c2w[:, 2, 0], c2w[:, 0, 2] = angles.sin(), -angles.sin()
        c2w[:, :3, 3] = -4 * c2w[:, :3, 2]
        intrinsics = torch.tensor([[40.0, 0, size[1] / 2], [0, 40.0, size[0] / 2], [0, 0, 1]])
        return Cameras(intrinsics.expand(len(angles), 3, 3), c2w)

    return build
