"""A tiny general checkpoint, and flags of runs that take a second or two."""

import pytest
import torch
from tiny_models import random_backbone, save_general

import train_vggt_nerf_finetuning_pl
from models.config import (
    CostVolumeConfig,
    FeaturePyramidConfig,
    ModelConfig,
    RadianceFieldConfig,
    RenderConfig,
)
from models.vggt.backbone import load_backbone
from models.vggt_nerf import VGGTNeRF
from utils.cameras import Cameras

FLAGS = {
    "n_views": 3,
    "batch_size": 96,
    "targets_per_step": 1,
    "spare_sources": 1,
    "refine_every": 2,
    "patch_size": 8,
    "num_steps": 6,
    "val_every": 3,
    "save_every": 2,
    "accelerator": "cpu",
}


@pytest.fixture(scope="session")
def general_checkpoint(tiny_backbone, tmp_path_factory):
    """Of a model with random weights and a width that fine-tuning is quick with."""
    config = ModelConfig(
        FeaturePyramidConfig(feature_channels=8, coarse_channels=8, pyramid_width=16),
        CostVolumeConfig(volume_channels=4, volume_widths=(8, 8), volume_groups=4),
        RadianceFieldConfig(field_width=16, view_width=8, similarity_groups=4, ray_heads=2),
        RenderConfig(N_planes=12, N_samples=8),
    )
    torch.manual_seed(0)
    model = VGGTNeRF(config, load_backbone(random_backbone(tiny_backbone))).eval()
    return save_general(model, tiny_backbone, tmp_path_factory.mktemp("ckpt"))


@pytest.fixture
def finetune(general_checkpoint, tiny_dtu, tmp_path, monkeypatch):
    """Run the script; returns its status."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def run(*argv, datadir=tiny_dtu / "scan2", **flags):
        given = {"datadir": datadir, "init_ckpt": general_checkpoint, "save_dir": tmp_path / "runs"}
        pairs = {**FLAGS, **given, **flags}
        texts = [text for name, value in pairs.items() for text in (f"--{name}", str(value))]
        try:
            return train_vggt_nerf_finetuning_pl.main([*texts, *map(str, argv)])
        except SystemExit as stop:
            return stop.code

    return run


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
