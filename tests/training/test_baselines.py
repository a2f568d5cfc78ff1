"""General training and fine-tuning of the baselines, and what teaches single points."""

import math

import pytest
import torch
from training_runs import train

from datasets.views import Views
from models.baselines.config import BaselineConfig
from models.baselines.mvsnerf.model import MVSNeRF
from models.baselines.point_regression import PointRegression
from models.checkpoints.general import read_checkpoint, read_model_file
from models.checkpoints.scene_file import load_finetuned
from models.config import FeaturePyramidConfig
from models.ray_sampling import DepthPlanes
from models.vggt.backbone import NullBackbone
from training.baseline_module import BaselineModule
from training.point_supervision import draw_box_points, draw_surface_points, label_points
from utils.cameras import Cameras, project
from utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")

SMALL = ["--ray_samples", 4, "--encoding_planes", 8, "--encoding_pad", 4, "--num_epochs", 1]
THREE = ["--min_sources", 3, "--max_sources", 3]


@pytest.fixture
def baseline(general, monkeypatch):
    """Train a baseline for three steps; returns losses and checkpoint."""
    monkeypatch.setattr(general, "module", BaselineModule)

    def run(folder, name, *flags, at=None):
        return train(general, folder, "--model", name, *SMALL, *THREE, *flags, at=at)

    return run


@pytest.mark.parametrize(
    ("name", "kind", "flags"),
    [
        ("mvsnerf", MVSNeRF, []),
        ("point_regression", PointRegression, []),
        ("point_regression", PointRegression, ["--point_supervision", "rays"]),
    ],
)
def test_a_baseline_trains_and_comes_back(baseline, tmp_path, name, kind, flags):
    losses, path = baseline(tmp_path, name, *flags)
    assert len(losses) == 3 and all(map(math.isfinite, losses.values()))
    checkpoint = read_model_file(str(path))
    model = checkpoint.build_model()
    assert isinstance(model, kind) and checkpoint.step == 3 and model.num_samples == 4
    with pytest.raises(UserError, match=f"baseline {name}"):
        read_checkpoint(str(path))


def test_a_cut_run_of_a_baseline_goes_on_exactly(baseline, tmp_path):
    whole, _ = baseline(tmp_path / "whole", "point_regression")
    before, path = baseline(tmp_path / "cut", "point_regression", at=2)
    after, _ = baseline(tmp_path / "cut", "point_regression", "--ckpt", path)
    assert {**before, **after} == whole
    with pytest.raises(UserError, match="run.model='mvsnerf'"):
        baseline(tmp_path / "other", "mvsnerf", "--ckpt", path)


def test_mvsnerf_wants_three_sources(general, tmp_path, capsys):
    with pytest.raises(SystemExit):
        train(general, tmp_path, "--model", "mvsnerf", "--max_sources", 4)
    assert "--min_sources 3 --max_sources 3" in capsys.readouterr().err


def test_the_volume_of_a_scene_learns(run_finetuning_script, mvsnerf_file, tmp_path):
    flags = {"N_planes": 8, "N_samples": 4, "init_ckpt": mvsnerf_file}
    status, said = run_finetuning_script(**flags)
    assert status == 0, said
    folder = tmp_path / "runs/scan2/vggt_finetune_scan2/ckpts"
    tuned = load_finetuned(folder / "latest.tar")
    first = load_finetuned(folder / "best.tar").scene
    assert tuned.header.mvsnerf is not None and tuned.scene.num_sources == 3
    moved = tuned.scene.state_dict()["volume"] - first.state_dict()["volume"]
    images = tuned.render(tuned.scene.cameras[[0]])
    assert images.rgb.isfinite().all() and moved.isfinite().all()


def test_a_scene_of_mvsnerf_wants_three_sources(refused, mvsnerf_file):
    refused("--n_views 2", "3", n_views=2, init_ckpt=mvsnerf_file)


@pytest.fixture
def wall(make_cameras):
    """Two views of a wall at z = 0, 4 away."""
    cameras = make_cameras(2, size=(8, 10))
    views = Cameras(cameras.intrinsics[None], cameras.c2w[None])
    depths = torch.full((1, 2, 8, 10), 4.0)
    images = torch.rand(1, 2, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    return Views(images, views, depths, torch.ones_like(depths, dtype=torch.bool))


NEAR_FAR = torch.tensor([[2.0, 6.0]])


def test_points_are_labelled_by_true_depth(wall):
    z = torch.tensor([-1.0, -0.2, 0.0, 0.2, 1.0])
    points = torch.stack([torch.full((5,), -0.4), torch.zeros(5), z], -1)[None]
    points = torch.cat([points, torch.tensor([[[90.0, 0.0, 0.0]]])], 1)
    empty, solid = label_points(points, wall, DepthPlanes(NEAR_FAR, 16))
    assert empty[0].tolist() == [True, False, False, False, False, False]
    assert solid[0].tolist() == [False, True, True, True, False, False]


def test_surface_points_lie_on_the_surface_and_box_points_in_the_box(wall):
    generator = torch.Generator().manual_seed(0)
    surface = draw_surface_points(wall[:, 0], 50, generator)
    assert surface.known.all() and surface.points[..., 2].abs().max() < 1e-5
    pixels, _ = project(surface.points, wall.cameras[:, 0])
    for pixel, color in zip(pixels[0], surface.colors[0], strict=True):
        column, row = pixel.floor().int().tolist()
        assert torch.equal(wall.images[0, 0, :, row, column], color)
    box = draw_box_points(wall.cameras[:, 0], NEAR_FAR, (8, 10), 2000, generator)
    local = box - wall.cameras.centers[:, :1]
    assert local[..., 2].min() > 2 and local[..., 2].max() < 6
    assert abs(local[..., 2].mean() - 4) < 0.1
    # Half of the image is 5 pixels wide at a focal length of 40, 6 away.
    assert local[..., 0].abs().max() <= 0.75 + 1e-5 and local[..., 0].abs().max() > 0.7


def test_points_that_no_view_sees_know_nothing(make_views):
    config = BaselineConfig(ray_samples=4, point_width=8)
    model = PointRegression(config, FeaturePyramidConfig(8, 8, 16), NullBackbone())
    scene = model.encode(make_views(1, 3), NEAR_FAR)
    behind = torch.tensor([[[0.0, 0.0, -9.0], [3.0, 2.0, -9.0]]])
    logits, colors = model.query(scene, behind)
    assert torch.equal(logits[:, 0], logits[:, 1]) and torch.equal(colors[:, 0], colors[:, 1])
