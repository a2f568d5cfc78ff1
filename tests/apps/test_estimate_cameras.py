"""Cameras of photos without any: a backbone's prediction becomes a file that readers take."""

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import status_of
from PIL import Image

from apps.estimate_cameras import PhotoConfig, main, run_estimation
from apps.inspect_data import InspectionConfig
from datasets.formats.images.lenses import Lens
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from datasets.photos.estimated_cameras import write_transforms
from datasets.photos.preparation import collect_photos
from datasets.scene_cache import scene_cache
from models.scenes.photo_cameras import predict_cameras
from models.vggt.backbone import BackboneFeatures, FrozenVGGT
from models.vggt.pose_encoding import encode_pose
from utils.cameras import Cameras
from utils.errors import UserError


class KnownBackbone(FrozenVGGT):
    """Returns given cameras and depth, as a backbone would."""

    def __init__(self, cameras, depth):
        torch.nn.Module.__init__(self)
        self.long_side = 60
        self.cameras, self.depth = cameras, depth
        network = SimpleNamespace(parameters=lambda: iter([torch.zeros(1)]))
        object.__setattr__(self, "network", network)

    def forward(self, images, heads):
        size = tuple(images.shape[-2:])
        depth = self.depth.expand(1, len(self.cameras.c2w), *size)
        pose = encode_pose(self.cameras, *size)[None]
        return BackboneFeatures((), size, depth, torch.full_like(depth, 2.0), pose)


@pytest.fixture
def photos(tmp_path):
    noise = np.random.default_rng(0)
    for name, size in {"a.png": (40, 60), "b.png": (80, 120), "c.png": (40, 80)}.items():
        Image.fromarray(noise.integers(0, 255, (*size, 3), np.uint8)).save(tmp_path / name)
    return collect_photos(tmp_path, tmp_path / "estimated", 8)


@pytest.fixture
def backbone():
    c2w = torch.eye(4).repeat(3, 1, 1)
    c2w[:, :3, 3] = torch.tensor([[0.0, 0, 0], [1, 0.5, 0], [0, 1, -2]])
    c2w[1, :3, :3] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])
    intrinsics = torch.tensor([[50.0, 0, 30], [0, 50, 20], [0, 0, 1]])
    return KnownBackbone(Cameras(intrinsics.repeat(3, 1, 1), c2w), torch.tensor(4.0))


def test_the_file_holds_what_was_predicted_and_is_not_overwritten(tmp_path, photos, backbone):
    cameras = predict_cameras(photos, backbone)
    lens = Lens("perspective", (50.0, 50.0), (30.0, 20.0), (-0.1, 0.02, 0.001, 0.0, 0.0))
    file = tmp_path / "estimated/transforms.json"
    write_transforms(file, replace(cameras, lenses=(lens,) * 3))
    read = open_scene("photos", tmp_path, ReadOptions(size=(40, 60))).read_view.photos[0].lens
    assert read.coefficients == lens.coefficients and read.model == "perspective"
    write_transforms(file, cameras)
    content = json.loads(file.read_text())
    assert content["frames"][0]["file_path"] == "../a.png"
    # The third photo is wider: its sides were cut away before the network saw it.
    assert [round(frame["fl_x"]) for frame in content["frames"]] == [50, 100, 50]
    assert [frame["cx"] for frame in content["frames"]] == pytest.approx([30, 60, 40])
    scene = open_scene("photos", tmp_path, ReadOptions(size=(40, 60)))
    assert scene.name == tmp_path.name
    torch.testing.assert_close(scene.cameras.c2w, backbone.cameras.c2w, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scene.near_far, torch.tensor([0.6 * 4, 1.8 * 4]))
    assert scene.load_views([0, 1, 2]).images.shape == (3, 3, 40, 60)
    with pytest.raises(UserError, match="--overwrite"):
        run_estimation(PhotoConfig(photos=str(tmp_path)))


def test_cameras_behind_a_link_name_their_photos(tmp_path, photos, backbone):
    (tmp_path / "disk/of/caches").mkdir(parents=True)
    (tmp_path / "cache").symlink_to(tmp_path / "disk/of/caches")
    file = tmp_path / "cache/photos/transforms.json"
    write_transforms(file, predict_cameras(photos, backbone))
    frames = json.loads(file.read_text())["frames"]
    assert all((file.parent / frame["file_path"]).is_file() for frame in frames)
    assert len(open_scene("transforms", file.parent, ReadOptions(size=(40, 60))).view_ids) == 3


def test_predictions_that_are_not_finite(photos, backbone):
    backbone.cameras = Cameras(backbone.cameras.intrinsics, backbone.cameras.c2w * torch.nan)
    with pytest.raises(UserError, match="no finite cameras"):
        predict_cameras(photos, backbone)


def test_photos_without_cameras_say_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"apps\.estimate_cameras --photos"):
        open_scene("photos", tmp_path)
    assert InspectionConfig(dataset_name="photos").format_name == "photos"
    assert scene_cache(tmp_path / "b.mp4").name == "b_estimated"
    assert scene_cache(tmp_path).name == "estimated"


def test_colmap_estimates_too(tmp_path, photos):
    config = PhotoConfig(photos=str(tmp_path), method="colmap")
    with pytest.raises(UserError, match="COLMAP found no solution"):
        run_estimation(config)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--backbone_size", "500"], ["backbone_size=500", "for example 490 or 504"]),
        (["--max_views", "1"], ["max_views"]),
    ],
)
def test_refusals_before_anything_is_read(tmp_path, assert_refused, flags, words):
    assert_refused(status_of(main, "--photos", tmp_path / "none", *flags), words)


def test_settings_need_no_torch():
    modules = "apps.estimate_cameras, apps.average_backbones, train_vggt_mini_pl"
    script = f"import sys, {modules}; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
