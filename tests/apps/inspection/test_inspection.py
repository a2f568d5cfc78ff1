"""The inspector on small scenes: what it says, draws and refuses."""

import json
import re
import shlex
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from apps.inspect_data import InspectionConfig
from apps.inspection.conventions import match_pair
from apps.inspection.picture import plane_sweep, shrink, warp
from apps.inspection.run import run_inspection
from datasets.formats.registry import open_scene
from training.config import GeneralTrainingConfig
from utils.config import parse_config
from utils.errors import UserError

HEIGHT, WIDTH, FOCAL = 240, 320, 300.0
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def texture(random, size=1200):
    coarse = random.random((60, 60)).astype(np.float32)
    fine = random.random((300, 300)).astype(np.float32)
    big = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(0.6 * big + 0.4 * cv2.resize(fine, (size, size)), 0, 1)


def poses(count=6):
    result = []
    for view in range(count):
        turn = cv2.Rodrigues(np.array([0.02 * (-1) ** view, -0.12 * (view - 2.5), 0.06 * view]))[0]
        pose = np.eye(4)
        pose[:3, :3] = turn
        pose[:3, 3] = [-0.5 * (view - 2.5), 0.1 * (view % 3), -4.0 + 0.1 * view]
        result.append(pose)
    return result


def photograph(planes, pose):
    """Draw textured planes z = depth, far ones first."""
    matrix = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
    w2c = np.linalg.inv(pose)
    image = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    for depth, half, picture in planes:
        side = picture.shape[0]
        to_world = np.array(
            [[2 * half / side, 0, -half], [0, 2 * half / side, -half], [0, 0, depth], [0, 0, 1]]
        )
        homography = matrix @ w2c[:3] @ to_world
        shift = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
        homography = shift @ homography @ np.linalg.inv(shift)
        drawn = cv2.warpPerspective(picture, homography, (WIDTH, HEIGHT), flags=cv2.INTER_AREA)
        shown = cv2.warpPerspective(np.ones_like(picture), homography, (WIDTH, HEIGHT)) > 0.5
        image = np.where(shown, drawn, image)
    return (image * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planes scene")
    random = np.random.default_rng(0)
    planes = [(2.0, 6.0, texture(random)), (0.3, 0.8, texture(random))]
    for view, pose in enumerate(poses()):
        Image.fromarray(photograph(planes, pose)).convert("RGB").save(folder / f"{view}.png")
    write(folder)
    return folder


def write(folder, axes=OPENGL, near=2.0, far=9.0):
    frames = [
        {"file_path": f"{view}.png", "transform_matrix": (pose @ axes).tolist()}
        for view, pose in enumerate(poses())
    ]
    content = {"fl_x": FOCAL, "near": near, "far": far, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))


def config(root, tmp_path, **settings):
    settings = {"dataset_name": "transforms", "datadir": str(root), **settings}
    return InspectionConfig(out=str(tmp_path / "out"), pairs=4, **settings)


def test_a_good_scene_is_ready_to_train(root, tmp_path):
    write(root)
    report = run_inspection(config(root, tmp_path))
    assert "6 views of 320x240" in report and "100% of points in front" in report
    assert "5 train, 1 val" in report
    assert report.splitlines()[-1].startswith("ready to train: python train_vggt_nerf_pl.py")
    assert f"'{root}'" in report.splitlines()[-1]
    with Image.open(next((tmp_path / "out").glob("*.png"))) as picture:
        assert picture.width > 1000


def test_opencv_axes_are_named_with_a_remedy(root, tmp_path):
    write(root, axes=np.eye(4))
    with pytest.raises(UserError, match=r"OpenCV axes where OpenGL's.*To mend it: negate"):
        run_inspection(config(root, tmp_path))
    write(root)


def test_a_range_that_leaves_the_scene_out(root, tmp_path):
    write(root, near=1.0, far=3.0)
    with pytest.raises(UserError, match=r"leave out \d+% .*--near_far") as refused:
        run_inspection(config(root, tmp_path))
    near, far = re.search(r"--near_far (\S+) (\S+)\.$", str(refused.value), re.MULTILINE).groups()
    report = run_inspection(config(root, tmp_path, near_far=(float(near), float(far))))
    flags = shlex.split(report.splitlines()[-1].partition("configs/vggt_general.txt")[2])
    trained = parse_config(GeneralTrainingConfig, flags)
    assert trained.data.near_far == (float(near), float(far))
    write(root)


def test_the_swept_depth_warps_a_neighbour_into_place(root):
    write(root)
    scene = open_scene("transforms", root)
    views = shrink(scene.load_views([2, 3, 1]), 160)
    depth = plane_sweep(views, scene.near_far)
    inner = (slice(None), slice(15, -15), slice(20, -20))
    warped = (warp(views, depth, 1) - views.images[0]).abs()[inner].mean()
    unwarped = (views.images[1] - views.images[0]).abs()[inner].mean()
    assert warped < 0.35 * unwarped


def test_nothing_matches_in_textureless_images():
    assert match_pair(torch.full((2, 3, 60, 80), 0.5)).shape == (2, 0, 2)


def test_dtu_and_a_broken_scene(tiny_dtu, tmp_path):
    report = run_inspection(config(tiny_dtu, tmp_path, dataset_name="dtu", scenes=1))
    assert "2 scenes with 16 views" in report and "--dataset_name dtu" in report
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "transforms.json").write_text("{")
    with pytest.raises(UserError, match=r"a.transforms\.json: cannot read"):
        run_inspection(config(tmp_path / "set", tmp_path))


@pytest.mark.parametrize("missing", ["train", "val"])
def test_dtu_scans_that_leave_nothing_to_train_on(tiny_dtu, tmp_path, missing):
    copy = tmp_path / "dtu"
    shutil.copytree(tiny_dtu, copy)
    (copy / "lists" / f"{missing}.txt").write_text("scan65\n")
    with pytest.raises(UserError, match=rf"{missing}: .*none of the 1 scans.*lists/\{{train,val"):
        run_inspection(config(copy, tmp_path, dataset_name="dtu", scenes=1))


def test_dtu_scans_without_a_test_split_are_ready_to_train(tiny_dtu, tmp_path):
    copy = tmp_path / "dtu"
    shutil.copytree(tiny_dtu, copy)
    (copy / "lists" / "test.txt").write_text("scan65\n")
    (copy / "lists" / "val.txt").write_text((copy / "lists" / "train.txt").read_text())
    report = run_inspection(config(copy, tmp_path, dataset_name="dtu", scenes=1))
    assert "ready to train" in report


@pytest.mark.parametrize("settings", [{"image_size": (3,)}, {"near_far": (1.0,)}, {"scenes": -1}])
def test_settings_that_cannot_be_meant(settings):
    with pytest.raises(ValueError):
        InspectionConfig(**settings)
