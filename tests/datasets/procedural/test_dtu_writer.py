import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.formats.images.decoding import read_image
from datasets.formats.registry import choose_scenes, open_scene
from datasets.procedural.config import ProceduralConfig
from datasets.procedural.dtu_writer import COMPLETE, MILLIMETRES, PARTIAL, DtuSettings, write_dtu
from datasets.procedural.generator import ProceduralGenerator
from utils.errors import UserError

SIZE = (32, 40)
SETTINGS = DtuSettings(scene_ids=(3, 4), size=SIZE, num_views=12)


def generator(**settings) -> ProceduralGenerator:
    return ProceduralGenerator(ProceduralConfig(**({"rig": "dtu", "samples": 1} | settings)))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_dtu(generator(), tmp_path_factory.mktemp("made") / "dtu", SETTINGS)


def test_every_file_is_there(written):
    assert len(list((written / "Cameras" / "train").glob("*_cam.txt"))) == 12
    for scan in ("scan1_train", "scan2_train"):
        assert len(list((written / "Rectified" / scan).glob("rect_*_3_r5000.png"))) == 12
        assert len(list((written / "Depths" / scan).glob("depth_map_*.pfm"))) == 12
        assert len(list((written / "Depths" / scan).glob("depth_visual_*.png"))) == 12
    assert (written / "lists" / "train.txt").read_text().split() == ["scan1"]
    assert (written / "lists" / "test.txt").read_text().split() == ["scan2"]
    pairs = (written / "Cameras" / "pair.txt").read_text().splitlines()
    assert pairs[0] == "12" and len(pairs) == 25
    assert json.loads((written / COMPLETE).read_text())["settings"]["num_views"] == 12


def test_the_reader_of_dtu_finds_what_was_rendered(written):
    rendered = generator().sample([3], 12, SIZE, SETTINGS.difficulty).views
    (folder,) = choose_scenes("dtu", written, split="train")
    scene = open_scene("dtu", folder)
    views = scene.load_views(range(12))
    torch.testing.assert_close(views.images, rendered.images[0], atol=0.01, rtol=0)
    cameras = rendered.cameras[0].scaled_world(MILLIMETRES / scene.unit.factor)
    depths = rendered.depths[0] * (MILLIMETRES / scene.unit.factor)
    torch.testing.assert_close(views.depths, depths, rtol=1e-5, atol=0)
    torch.testing.assert_close(views.cameras.intrinsics, cameras.intrinsics, atol=1e-4, rtol=0)
    torch.testing.assert_close(views.cameras.w2c, cameras.w2c, atol=1e-5, rtol=1e-5)
    near, far = scene.near_far
    assert ((depths == 0) | ((depths > near) & (depths < far))).float().mean() > 0.999


def test_a_complete_folder_is_left_alone_and_an_interrupted_one_written_anew(tmp_path):
    settings = DtuSettings(scene_ids=(1,), size=(16, 16), num_views=2)
    folder = write_dtu(generator(), tmp_path / "dtu", settings)
    image = folder / "Rectified" / "scan1_train" / "rect_001_3_r5000.png"
    image.unlink()
    write_dtu(generator(), folder, settings)
    assert not image.exists()
    (folder / COMPLETE).rename(folder / PARTIAL)
    write_dtu(generator(), folder, settings)
    assert image.exists() and (folder / COMPLETE).exists() and not (folder / PARTIAL).exists()


def test_lights_differ_but_geometry_does_not(tmp_path):
    settings = DtuSettings(scene_ids=(2,), size=(32, 32), num_views=1, lights=(3, 0))
    images = write_dtu(generator(), tmp_path / "dtu", settings) / "Rectified" / "scan1_train"
    bright, dim = (read_image(images / f"rect_001_{light}_r5000.png") for light in (3, 0))
    assert np.abs(bright - dim).mean() > 1 / 255


def test_what_is_not_ours_is_not_overwritten(tmp_path):
    settings = DtuSettings(scene_ids=(1,), size=(16, 16), num_views=1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="choose another"):
        write_dtu(generator(), tmp_path, settings)
    folder = write_dtu(generator(), tmp_path / "dtu", settings)
    with pytest.raises(UserError, match="has other settings"):
        write_dtu(generator(seed=1), folder, settings)


@pytest.mark.parametrize(
    ("rig", "change", "word"),
    [
        ("dtu", {"size": (30, 40)}, "multiples"),
        ("dtu", {"num_views": 50}, "views"),
        ("dtu", {"lights": (7,)}, "lights"),
        ("natural", {}, "rig"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, rig, change, word):
    settings = DtuSettings(**({"scene_ids": (0,)} | change))
    with pytest.raises(UserError, match=word):
        write_dtu(generator(rig=rig), tmp_path / "dtu", settings)
