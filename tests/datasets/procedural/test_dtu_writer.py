import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.formats.dtu import image_intrinsics
from datasets.formats.images import read_pfm
from datasets.formats.mvsnet_files import read_camera_file
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


def test_files_hold_what_was_rendered(written):
    batch = generator().sample([3], 12, SIZE, SETTINGS.difficulty)
    views = batch.views
    depth = read_pfm(written / "Depths" / "scan1_train" / "depth_map_0005.pfm")
    np.testing.assert_allclose(depth, views.depths[0, 5].numpy() * MILLIMETRES, rtol=1e-5)
    with Image.open(written / "Rectified" / "scan1_train" / "rect_006_3_r5000.png") as image:
        pixels = np.asarray(image) / 255
    np.testing.assert_allclose(pixels, views.images[0, 5].permute(1, 2, 0).numpy(), atol=0.01)
    camera = read_camera_file(written / "Cameras" / "train" / "00000005_cam.txt")
    torch.testing.assert_close(
        image_intrinsics(camera, SIZE), views.cameras.intrinsics[0, 5].double(), atol=1e-4, rtol=0
    )
    expected = views.cameras.scaled_world(MILLIMETRES).w2c[0, 5].double()
    torch.testing.assert_close(camera.w2c, expected, atol=1e-3, rtol=1e-5)


def test_depths_lie_in_the_range_of_the_camera_files(written):
    camera = read_camera_file(written / "Cameras" / "train" / "00000000_cam.txt")
    for path in (written / "Depths").rglob("*.pfm"):
        depth = read_pfm(path)
        inside = (depth == 0) | ((depth > camera.near) & (depth < camera.far))
        assert inside.mean() > 0.999


def test_the_reader_of_dtu_reads_it(written):
    folder, *_ = choose_scenes("dtu", written, split="train")
    views = open_scene("dtu", folder).load_views([0])
    assert views.size == SIZE and (views.depths > 0).any()


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


def test_what_is_not_ours_is_not_overwritten(tmp_path):
    settings = DtuSettings(scene_ids=(1,), size=(16, 16), num_views=1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="choose another"):
        write_dtu(generator(), tmp_path, settings)
    folder = write_dtu(generator(), tmp_path / "dtu", settings)
    with pytest.raises(UserError, match="other settings"):
        write_dtu(generator(seed=1), folder, settings)


def test_lights_differ_but_geometry_does_not(tmp_path):
    settings = DtuSettings(scene_ids=(2,), size=(32, 32), num_views=1, lights=(3, 0))
    folder = write_dtu(generator(), tmp_path / "dtu", settings)
    images = [
        np.asarray(Image.open(folder / "Rectified" / "scan1_train" / f"rect_001_{light}_r5000.png"))
        for light in (3, 0)
    ]
    assert np.abs(images[0].astype(int) - images[1]).mean() > 1


@pytest.mark.parametrize(
    ("change", "word"),
    [({"size": (30, 40)}, "multiples"), ({"num_views": 50}, "views"), ({"lights": (7,)}, "lights")],
)
def test_impossible_settings_are_refused(tmp_path, change, word):
    settings = DtuSettings(**({"scene_ids": (0,)} | change))
    with pytest.raises(UserError, match=word):
        write_dtu(generator(), tmp_path / "dtu", settings)


def test_the_rig_must_be_shared(tmp_path):
    with pytest.raises(UserError, match="rig"):
        write_dtu(generator(rig="natural"), tmp_path / "dtu", DtuSettings(scene_ids=(0,)))
