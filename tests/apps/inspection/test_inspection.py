"""The inspector on small scenes: what it says, draws and refuses."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from textured_planes import FOCAL, pose, save_photographs

from apps.inspect_data import InspectionConfig
from apps.inspection.conventions import match_pair
from apps.inspection.run import run_inspection
from apps.inspection.scene_figure import plane_sweep, warp
from datasets.data_module import SceneDataModule
from datasets.formats.registry import open_scene
from training.config import GeneralTrainingConfig
from utils.config import parse_config
from utils.errors import UserError

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planes scene")
    save_photographs(folder)
    return folder


@pytest.fixture
def root(photographs):
    write(photographs)
    return photographs


def write(folder, axes=OPENGL, near=2.0, far=9.0, moved=0.0, count=6):
    frames = []
    for view in range(count):
        matrix = pose(view) @ axes
        matrix[:3, 3] += moved
        frames.append({"file_path": f"{view}.png", "transform_matrix": matrix.tolist()})
    content = {"fl_x": FOCAL, "near": near, "far": far, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))


def config(root, tmp_path, **settings):
    settings = {"dataset_name": "transforms", "datadir": str(root), **settings}
    return InspectionConfig(out=str(tmp_path / "out"), pairs=4, **settings)


def test_a_good_scene_is_ready_to_train(root, tmp_path):
    report = run_inspection(config(root, tmp_path))
    assert "6 views of 320x240" in report and "100% of points in front" in report
    assert "5 train, 1 val" in report
    assert report.splitlines()[-1].startswith("ready to train: python train_vggt_nerf_pl.py")
    assert f"'{root}'" in report.splitlines()[-1]
    with Image.open(next((tmp_path / "out").glob("*.png"))) as picture:
        assert picture.width > 1000


def test_coordinates_of_a_map_are_as_good_as_any(root, tmp_path):
    write(root, moved=np.array([543210.0, 5432109.0, 100.0]))
    report = run_inspection(config(root, tmp_path))
    assert "100% of points in front" in report and "ready to train" in report


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_the_command_for_few_views_is_one_that_training_takes(root, tmp_path, count):
    write(root, count=count)
    report = run_inspection(config(root, tmp_path)).splitlines()[-1]
    if count == 2:
        assert report.startswith("too few views to train on; ready to render: python render_video")
        return
    flags = shlex.split(report.partition("configs/vggt_general.txt")[2])
    usual = ["--min_sources", "2", "--max_sources", "4"]
    data = SceneDataModule(parse_config(GeneralTrainingConfig, [*usual, *flags]).data)
    data.setup()
    assert len(data.train_dataset) == count - 1 and len(data.val_dataset) == 1


def test_cameras_whose_positions_were_lost(root, tmp_path):
    path = root / "transforms.json"
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        for row, number in zip(frame["transform_matrix"], (3.0, 4.0, 5.0), strict=False):
            row[3] = number
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"at the same position.*apps\.estimate_cameras") as refused:
        run_inspection(config(root, tmp_path))
    assert "disagree with" not in str(refused.value)


@pytest.mark.parametrize("moved", [0.0, 1e6])
def test_opencv_axes_are_named_with_a_remedy(root, tmp_path, moved):
    write(root, axes=np.eye(4), moved=moved)
    with pytest.raises(UserError, match=r"OpenCV axes instead of OpenGL's.*To fix it: negate"):
        run_inspection(config(root, tmp_path))


@pytest.mark.parametrize(
    ("near", "far", "told"), [(1.0, 3.0, r"exclude \d+% "), (0.01, 9.0, r"leave only 0\.\d+% ")]
)
def test_a_range_that_leaves_the_scene_out_or_little_to_it(root, tmp_path, near, far, told):
    write(root, near=near, far=far)
    with pytest.raises(UserError, match=rf"{told}.*--near_far") as refused:
        run_inspection(config(root, tmp_path))
    near, far = re.search(r"--near_far (\S+) (\S+)\.$", str(refused.value), re.MULTILINE).groups()
    report = run_inspection(config(root, tmp_path, near_far=(float(near), float(far))))
    flags = shlex.split(report.splitlines()[-1].partition("configs/vggt_general.txt")[2])
    trained = parse_config(GeneralTrainingConfig, flags)
    assert trained.data.near_far == (float(near), float(far))


def test_the_swept_depth_warps_a_neighbour_into_place(root):
    scene = open_scene("transforms", root)
    views = scene.load_views([2, 3, 1]).resized((120, 160))
    depth = plane_sweep(views, scene.near_far)
    inner = (slice(None), slice(15, -15), slice(20, -20))
    warped = (warp(views, depth, 1) - views.images[0]).abs()[inner].mean()
    unwarped = (views.images[1] - views.images[0]).abs()[inner].mean()
    assert warped < 0.35 * unwarped


def test_nothing_matches_in_textureless_images():
    assert match_pair(torch.full((2, 3, 60, 80), 0.5)).shape == (2, 0, 2)


def test_images_that_are_cut_off_are_named(photographs, tmp_path):
    root = shutil.copytree(photographs, tmp_path / "scene")
    write(root)
    for number in (1, 4):
        content = (root / f"{number}.png").read_bytes()
        (root / f"{number}.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"problems found: 2\n.*1\.png: cannot .*\n.*4\.png: "):
        run_inspection(config(root, tmp_path))


def test_a_broken_scene_is_named(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "transforms.json").write_text("{")
    with pytest.raises(UserError, match=r"a.transforms\.json: cannot read"):
        run_inspection(config(tmp_path / "set", tmp_path))


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_dtu_needs_scans_to_train_on_and_no_test_split(tiny_dtu, tmp_path, missing):
    copy = shutil.copytree(tiny_dtu, tmp_path / "dtu")
    (copy / "lists" / f"{missing}.txt").write_text("scan65\n")
    dtu = config(copy, tmp_path, dataset_name="dtu", scenes=1)
    if missing == "test":
        report = run_inspection(dtu)
        assert "2 scenes with 16 views" in report and "--dataset_name dtu" in report
        assert "ready to train" in report
        return
    with pytest.raises(UserError, match=rf"{missing}: .*none of the 1 scans.*lists/\{{train,val"):
        run_inspection(dtu)


@pytest.mark.parametrize("settings", [{"image_size": (3,)}, {"near_far": (1.0,)}, {"scenes": -1}])
def test_settings_that_cannot_be_meant(settings):
    with pytest.raises(ValueError):
        InspectionConfig(**settings)
