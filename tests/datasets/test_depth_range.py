"""Near and far of scenes whose files do not give them."""

import json
import logging

import numpy as np
import pytest
import torch
from textured_planes import FOCAL, pose

from datasets.formats import depth_range
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from utils.errors import UserError


def write_cameras(folder, axes=(1, -1, -1, 1), turned=True):
    frames = []
    for view in range(6):
        matrix = pose(view) if turned else np.eye(4)
        frames.append({"file_path": f"{view}.png", "transform_matrix": (matrix * axes).tolist()})
    content = {"fl_x": FOCAL, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))


def test_it_is_measured_once_and_can_be_chosen(plane_photos, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    write_cameras(plane_photos)
    measured = open_scene("transforms", plane_photos, ReadOptions((60, 80))).near_far
    # The planes are 4.3 and 6.0 in front of the middle cameras; the others stand 0.5 farther back.
    near, far = measured.tolist()
    assert 2.3 < near < 3.5 and 7 < far < 11
    assert "by matched features" in caplog.text
    monkeypatch.setattr(depth_range, "detect_features", None)
    again = open_scene("transforms", plane_photos)
    torch.testing.assert_close(again.near_far, measured)
    chosen = open_scene("transforms", plane_photos, ReadOptions(near_far=(1.0, 7.0)))
    assert chosen.near_far.tolist() == [1.0, 7.0]
    write_cameras(plane_photos, turned=False)
    with pytest.raises(TypeError):  # Other cameras: it is measured again.
        open_scene("transforms", plane_photos)


def test_a_near_that_is_next_to_nothing_is_not_believed(plane_photos, caplog):
    write_cameras(plane_photos)
    measured = open_scene("transforms", plane_photos).near_far
    path = plane_photos / "transforms.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"near": 1e-9, "far": 9.0}))
    assert open_scene("transforms", plane_photos).near_far.equal(measured)
    assert "near 1e-09 is too small for far 9; both are measured" in caplog.text
    chosen = open_scene("transforms", plane_photos, ReadOptions(near_far=(1e-9, 7.0)))
    assert chosen.near_far[1] == 7.0


def test_without_matches_it_is_guessed_from_the_cameras_or_asked_for(plane_photos):
    write_cameras(plane_photos, turned=False)
    with pytest.raises(UserError, match=r"--near_far"):
        open_scene("transforms", plane_photos)


def test_where_nothing_can_be_kept(plane_photos):
    write_cameras(plane_photos)
    (plane_photos / "estimated").write_text("in the way")
    assert open_scene("transforms", plane_photos).near_far[0] > 2
