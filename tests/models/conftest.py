import json
from dataclasses import asdict

import pytest
import torch

from datasets.posed_scene import PosedScene, ViewPixels
from datasets.views import Views
from models.backbone import BackboneConfig
from models.feature_pyramid import FeaturePyramidConfig
from models.radiance_field import RadianceFieldConfig
from models.target_volume import TargetVolumeConfig
from models.vggt.config import VGGTConfig
from models.vggt.frozen import FrozenVGGT
from models.vggt.initialization import random_vggt
from models.vggt.loading import read_config
from models.vggt_nerf import ModelConfig, RenderConfig, VGGTNeRF
from utils.cameras import Cameras
from utils.checkpoints import save_atomically

TINY_VGGT = VGGTConfig(
    embed_dim=32,
    img_size=56,
    depth=4,
    num_heads=2,
    dino_depth=1,
    dino_heads=2,
    trunk_depth=1,
    camera_heads=2,
    features=16,
    out_channels=(8, 8, 8, 8),
    intermediate_layer_idx=(0, 1, 2, 3),
)


def ring_cameras(count, distance=4.0, size=(32, 40)):
    """Cameras side by side on the x axis, all looking along z."""
    height, width = size
    intrinsics = torch.tensor([[40.0, 0, width / 2], [0, 40.0, height / 2], [0, 0, 1]])
    c2w = torch.eye(4).repeat(count, 1, 1)
    c2w[:, 0, 3] = torch.linspace(-0.4, 0.4, count) if count > 1 else 0
    c2w[:, 2, 3] = -distance
    return Cameras(intrinsics.expand(count, 3, 3), c2w)


def random_views(batch, count, size=(32, 40), seed=0):
    height, width = size
    generator = torch.Generator().manual_seed(seed)
    cameras = ring_cameras(count, size=size)
    return Views(
        torch.rand(batch, count, 3, height, width, generator=generator),
        Cameras(
            cameras.intrinsics.expand(batch, -1, -1, -1), cameras.c2w.expand(batch, -1, -1, -1)
        ),
        torch.zeros(batch, count, height, width),
        torch.ones(batch, count, height, width, dtype=torch.bool),
    )


@pytest.fixture
def make_views():
    return random_views


@pytest.fixture
def make_cameras():
    return ring_cameras


@pytest.fixture(scope="session")
def tiny_model():
    torch.manual_seed(0)
    config = ModelConfig(
        FeaturePyramidConfig(feature_channels=16, pyramid_width=16),
        TargetVolumeConfig(volume_channels=4, volume_widths=(8, 16), volume_groups=4),
        RadianceFieldConfig(field_width=16, view_width=8, similarity_groups=4, ray_heads=2),
        RenderConfig(N_planes=12, N_samples=8, pad=0.0),
    )
    return VGGTNeRF(config, FrozenVGGT(random_vggt(TINY_VGGT, seed=0), 56)).eval()


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_model, tmp_path_factory):
    """A checkpoint as general training writes it, of a model with random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    sizes = asdict(tiny_model.backbone.network.config)
    (folder / "config.json").write_text(json.dumps(sizes))
    assert read_config(folder) == tiny_model.backbone.network.config
    backbone = BackboneConfig(str(folder), tiny_model.backbone.long_side, random_backbone=True)
    settings = {
        "model": asdict(tiny_model.config),
        "backbone": asdict(backbone),
        "run": {"seed": 1},
    }
    header = {"settings": settings, "backbone_fingerprint": tiny_model.backbone.fingerprint}
    weights = {f"model.{name}": value for name, value in tiny_model.state_dict().items()}
    path = folder / "last.ckpt"
    save_atomically({"vggt_nerf": header, "state_dict": weights, "global_step": 7}, path)
    return path


class DrawnScene:
    """Views of one scene that know nothing but their own number."""

    def __call__(self, view):
        image = torch.rand(32, 40, 3, generator=torch.Generator().manual_seed(view))
        depth = torch.full((32, 40), 3.0)
        depth[:4] = 0
        return ViewPixels(
            image.numpy(), depth.numpy(), torch.ones(32, 40, dtype=torch.bool).numpy()
        )


@pytest.fixture
def drawn_scene(make_cameras):
    """Six views side by side, on the x axis."""
    ids = tuple(range(6))
    return PosedScene(
        name="drawn",
        view_ids=ids,
        view_names=tuple(map(str, ids)),
        cameras=make_cameras(6),
        near_far=torch.tensor([2.0, 6.0]),
        image_size=(32, 40),
        read_view=DrawnScene(),
    )
