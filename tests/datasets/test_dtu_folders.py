"""Folders of DTU: which scans are found, and what is wrong with bad ones."""

import logging
import shutil
from pathlib import Path

import pytest
from PIL import Image
from reference_data import SCENES

from datasets.config import DataSource
from datasets.formats.registry import choose_scenes
from datasets.scene_dataset import PixelCache, SamplingRules, SceneDataset
from datasets.views import SampleRequest
from utils.errors import UserError


def dataset(root, split):
    return SceneDataset(
        DataSource("dtu", Path(root)), split, SamplingRules(10, 1, 3), PixelCache(0)
    )


@pytest.fixture
def folder(tmp_path, tiny_dtu):
    """A copy of the small data set, to be changed."""
    return shutil.copytree(tiny_dtu, tmp_path / "dtu")


def test_scans_are_listed_counted_and_named(folder, caplog):
    shutil.rmtree(folder / "lists")
    shutil.move(folder / "Rectified/scan2_train", folder / "Rectified/scan8_train")
    with caplog.at_level(logging.INFO):
        data = dataset(folder, "val")
    assert data.scene_names == ["scan1", "scan8"]
    assert "2 of 16 scans found; missing: scan21, scan30, scan31, ... (+11)" in caplog.text
    assert "2 scenes, 2 target views" in caplog.text
    assert choose_scenes("dtu", folder, "scan8, scan1") == [folder / "scan8", folder / "scan1"]
    with pytest.raises(UserError, match="no scan 'scan9'.*scan8"):
        choose_scenes("dtu", folder, "scan9")


def test_scans_with_too_few_views_are_left_out(folder, caplog):
    for path in (folder / "Rectified/scan1_train").glob("rect_00[4-8]_*"):
        path.unlink()
    assert dataset(folder, "train").scene_names == ["scan2"]
    assert "1 of 2 scenes have fewer than 4 views and are left out, scan1" in caplog.text
    assert "3 of 8 views have image and camera; for example, there is no rect_004" in caplog.text
    for path in (folder / "Rectified").rglob("rect_00[4-8]_*"):
        path.unlink()
    with pytest.raises(UserError, match=r"4 are needed.*the largest has 3"):
        dataset(folder, "train")


def remove(name):
    return lambda folder: shutil.rmtree(folder / name)


def rewrite(name, change):
    def damage(folder):
        for path in folder.glob(name):
            path.write_bytes(change(path.read_bytes()))

    return damage


def shrink_first_image(folder):
    Image.new("RGB", (20, 16)).save(folder / "Rectified/scan2_train/rect_001_3_r5000.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("."), r"dtu: no such data folder.*Rectified"),
        (remove("Cameras"), r"00000000_cam\.txt.*Depths, Rectified, lists"),
        (remove("Rectified"), r"none of the 2 scans.*Rectified/scan1_train/"),
        (rewrite("Rectified/*/rect_001_3*", lambda _: b""), r"rect_001_3_r5000\.png"),
        (rewrite("Rectified/*/rect_001_3*", lambda _: b"\x89PNG\r\n\x1a\n"), r"rect_001_3_r5000"),
        (rewrite("Rectified/*/rect_001_3*", lambda _: b"no image"), r"rect_001_3_r5000\.png"),
        (shrink_first_image, r"scan2.* 20x16, but .*scan1"),
        (
            rewrite("Cameras/train/*", lambda text: text.replace(b"24 0 ", b"361.5 0 8")),
            r"00000000_cam\.txt: the principal point",
        ),
        (
            rewrite("Cameras/train/00000006*", lambda text: text.replace(b"0", b"oops", 1)),
            r"00000006_cam\.txt, line 2: .*oops",
        ),
    ],
)
def test_bad_folders_are_refused_at_once(folder, damage, message):
    damage(folder)
    with pytest.raises(UserError, match=message):
        dataset(folder, "train")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Rectified/scan2_train/rect_005_3*", lambda content: content[:-100], "rect_005.*damaged"),
        (
            "Depths/scan2/depth_map_0004.pfm",
            lambda _: b"Pf\n3 2\n-1\n" + bytes(24),
            r"depth_map_0004\.pfm: the map is 3x2.*80x64",
        ),
    ],
)
def test_damage_inside_a_file_is_refused_when_it_is_read(folder, name, change, message):
    rewrite(name, change)(folder)
    with pytest.raises(UserError, match=message):
        dataset(folder, "val")[SampleRequest(0)]


def test_an_image_of_another_size_is_refused_when_it_is_read(folder):
    Image.new("RGB", (40, 32)).save(folder / "Rectified/scan2_train/rect_005_3_r5000.png")
    with pytest.raises(UserError, match=r"rect_005_3_r5000\.png: the image is 40x32.*80x64"):
        dataset(folder, "val")[SampleRequest(0)]


@pytest.mark.data
@pytest.mark.skipif(not (SCENES / "dtu").is_dir(), reason="no DTU scans beside the checkout")
def test_the_training_list_of_a_real_folder_wins():
    data = dataset(SCENES / "dtu", "train")
    assert data.scene_names == ["scan65"] and len(data) == 49
