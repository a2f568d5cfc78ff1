import json
from dataclasses import asdict

import pytest
import torch

from datasets.posed_scene import PosedScene, ViewPixels
from models.backbone import BackboneConfig
from models.vggt.loading import read_config
from utils.checkpoints import save_atomically


@pytest.fixture(autouse=True)
def one_thread():
    """Over tensors this small threads only wait for each other, on a busy machine for long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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
