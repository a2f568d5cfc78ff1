"""Cameras of photographs without any, found by matching them."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from textured_planes import FOCAL, pose

from datasets.config import SceneConfig
from datasets.formats.registry import open_scene
from datasets.photos.estimated_cameras import EstimatedCameras
from datasets.photos.preparation import collect_photos
from datasets.photos.structure_from_motion import is_reliable, reconstruct_cameras
from datasets.scene_cache import find_estimate, scene_cache
from models.scenes import photo_cameras
from models.scenes.photo_cameras import ensure_cameras
from utils.cameras import Cameras


def rotation_errors(c2w):
    """Angles between the rotations of each camera to the next and the true ones, in degrees."""
    true = np.stack([pose(view)[:3, :3] for view in range(len(c2w))])
    steps, true_steps = (
        np.einsum("nji,njk->nik", poses[:-1], poses[1:]) for poses in (c2w[:, :3, :3], true)
    )
    cosines = (np.einsum("nij,nij->n", steps, true_steps) - 1) / 2
    return np.degrees(np.arccos(cosines.clip(-1, 1)))


def test_every_script_finds_the_cameras_of_bare_photos_once(plane_photos, monkeypatch, capfd):
    choice = SceneConfig(datadir=str(plane_photos))
    assert choice.format_name == "photos"
    ensure_cameras(choice)
    scene = open_scene("photos", plane_photos)
    assert scene.name == "my photos" and len(scene.view_ids) == 6
    assert rotation_errors(scene.cameras.c2w.numpy()).max() < 0.5
    assert abs(scene.cameras.intrinsics[0, 0, 0].item() / FOCAL - 1) < 0.03
    near, far = scene.near_far.tolist()
    assert 0.5 * 4.3 / 6 < near / far * 1.5 and near > 0
    said = capfd.readouterr()
    assert "incremental_pipeline" not in said.out + said.err
    monkeypatch.setattr(photo_cameras, "estimate_cameras", None)
    ensure_cameras(choice)


def test_photos_in_a_folder_of_images(plane_photos):
    inner = plane_photos / "images"
    inner.mkdir()
    for path in plane_photos.glob("*.png"):
        path.rename(inner / path.name)
    assert SceneConfig(datadir=str(plane_photos)).format_name == "photos"
    assert len(collect_photos(plane_photos, plane_photos / "out", 10)) == 6


def test_a_video(plane_photos):
    video = plane_photos.parent / "walk.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), 5, (320, 240))
    for view in range(6):
        writer.write(cv2.imread(str(plane_photos / f"{view}.png")))
    writer.release()
    choice = SceneConfig(datadir=str(video))
    assert choice.format_name == "photos"
    ensure_cameras(choice)
    scene = open_scene("photos", video)
    assert scene.name == "walk" and len(scene.view_ids) == 6
    assert rotation_errors(scene.cameras.c2w.numpy()).max() < 1


def test_two_sizes_of_photos_have_two_focal_lengths(plane_photos):
    with Image.open(plane_photos / "5.png") as image:
        image.resize((640, 480)).save(plane_photos / "5.png")
    photos = collect_photos(plane_photos, plane_photos / "out", 10)
    found = reconstruct_cameras(photos)
    assert found is not None and is_reliable(found, photos)
    focals = found.cameras.intrinsics[:, 0, 0]
    assert focals[5] / focals[0] == pytest.approx(2, rel=0.05)
    assert "of 6 photos" in found.describe(6) and "pixels" in found.describe(6)


def test_photos_that_do_not_match_are_left_to_the_backbone(tmp_path, monkeypatch, caplog):
    random = np.random.default_rng(0)
    for number in range(3):
        noise = random.integers(0, 255, (60, 80, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    photos = collect_photos(tmp_path, tmp_path / "out", 5)
    assert reconstruct_cameras(photos) is None
    eyes = torch.eye(3).repeat(3, 1, 1), torch.eye(4).repeat(3, 1, 1)
    guess = EstimatedCameras(tuple(photos), Cameras(*eyes), (1.0, 2.0), "the backbone")
    monkeypatch.setattr(photo_cameras, "predict_cameras", lambda photos, backbone: guess)
    assert photo_cameras.estimate_cameras(photos, False, photo_cameras.Estimation()) is guess
    assert "registered 0 of 3 photos" in caplog.text and "not checked" in guess.describe(3)


def test_estimates_of_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    photos = tmp_path / "photos"
    photos.mkdir()
    assert scene_cache(photos) == photos / "estimated"
    photos.chmod(0o555)
    folder = scene_cache(photos)
    assert folder.is_relative_to(tmp_path / "cache") and find_estimate(photos) is None
    folder.mkdir(parents=True)
    (folder / "transforms.json").write_text("{}")
    assert find_estimate(photos) == folder
    (tmp_path / "cache").chmod(0o555)
    assert scene_cache(photos).is_relative_to(tempfile.gettempdir())
    assert not scene_cache(photos).is_relative_to(tmp_path / "cache")
    others = scene_cache(photos)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert scene_cache(photos).parent != others.parent


def test_colmap_does_not_take_over_how_a_process_ends():
    script = (
        "import os, signal; from datasets.photos.structure_from_motion import _import_pycolmap; "
        "_import_pycolmap(); os.kill(os.getpid(), signal.SIGTERM)"
    )
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGTERM and "stack trace" not in ended.stderr
