"""Bad data folders: one clear error that names the file, or a report with counts."""

import logging
import shutil

import pytest
from PIL import Image

from datasets.data_config import DataConfig
from datasets.formats.dtu import DTUDataset
from datasets.views import SampleRequest
from utils.errors import UserError


@pytest.fixture
def folder(tmp_path, tiny_dtu):
    """A copy of the small data set, to be damaged."""
    return shutil.copytree(tiny_dtu, tmp_path / "dtu")


def test_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such data folder.*Rectified"):
        DTUDataset(tmp_path / "nowhere", "train")


def test_folder_without_cameras_says_what_it_found(folder):
    shutil.rmtree(folder / "Cameras")
    with pytest.raises(UserError, match=r"00000000_cam\.txt.*Depths, Rectified, lists"):
        DTUDataset(folder, "train")


def test_no_scan_of_the_list(folder):
    shutil.rmtree(folder / "lists")
    with pytest.raises(UserError, match=r"none of the 16 scans.*Rectified/scan1_train/"):
        shutil.rmtree(folder / "Rectified")
        DTUDataset(folder, "val")


def test_missing_scans_are_counted(folder, caplog):
    shutil.rmtree(folder / "lists")
    shutil.move(folder / "Rectified/scan2_train", folder / "Rectified/scan8_train")
    with caplog.at_level(logging.INFO):
        dataset = DTUDataset(folder, "val")
    assert dataset.scan_names == ["scan1", "scan8"]
    assert "2 of 16 scans found; missing: scan21, scan30, scan31, ... (+11)" in caplog.text
    assert "2 scans, 16 views, 8 of them with depth" in caplog.text


def test_scans_with_too_few_views_are_left_out(folder, caplog):
    for path in (folder / "Rectified/scan1_train").glob("rect_00[4-8]_*"):
        path.unlink()
    assert DTUDataset(folder, "train", max_sources=3).scan_names == ["scan2"]
    assert "1 scans have fewer than 4 views and are left out: scan1" in caplog.text


def test_too_few_views_everywhere_name_a_missing_image(folder):
    for path in (folder / "Rectified").rglob("rect_00[4-8]_*"):
        path.unlink()
    with pytest.raises(
        UserError, match=r"scan1_train: 3 views.*4 are needed.*rect_004_3_r5000\.png"
    ):
        DTUDataset(folder, "train", max_sources=3)


def test_too_few_cameras_name_a_missing_camera_file(folder):
    for view in range(3, 8):
        (folder / f"Cameras/train/{view:08d}_cam.txt").unlink()
    with pytest.raises(UserError, match=r"00000003_cam\.txt"):
        DTUDataset(folder, "train", max_sources=3)


def test_views_without_a_camera_are_reported(folder, caplog):
    (folder / "Cameras/train/00000003_cam.txt").unlink()
    assert len(DTUDataset(folder, "train")) == 14
    assert "2 scans have images without a camera file" in caplog.text


def test_more_sources_than_neighbours(tiny_dtu):
    dataset = DTUDataset(tiny_dtu, "train", max_sources=7)
    with pytest.raises(UserError, match="8 sources"):
        dataset[SampleRequest(0, num_sources=8)]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"not an image"])
def test_damaged_first_image_is_refused_at_once(folder, content):
    (folder / "Rectified/scan1_train/rect_001_3_r5000.png").write_bytes(content)
    with pytest.raises(UserError, match=r"scan1_train/rect_001_3_r5000\.png"):
        DTUDataset(folder, "train")


def test_truncated_image_is_refused_when_read(folder):
    path = folder / "Rectified/scan2_train/rect_005_3_r5000.png"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"scan2_train/rect_005_3_r5000\.png.*damaged"):
        DTUDataset(folder, "val")[SampleRequest(0)]


def test_images_of_two_sizes(folder):
    Image.new("RGB", (40, 32)).save(folder / "Rectified/scan2_train/rect_005_3_r5000.png")
    with pytest.raises(UserError, match=r"rect_005_3_r5000\.png: the image is 40x32.*80x64"):
        DTUDataset(folder, "val")[SampleRequest(0)]
    Image.new("RGB", (40, 32)).save(folder / "Rectified/scan2_train/rect_001_3_r5000.png")
    with pytest.raises(UserError, match=r"scan2_train/rect_001.* 40x32, but .*scan1_train"):
        DTUDataset(folder, "train")


def test_cameras_of_another_data_set(folder):
    for path in (folder / "Cameras/train").glob("*_cam.txt"):
        path.write_text(path.read_text().replace("24 0 ", "361.5 0 8"))
    with pytest.raises(UserError, match=r"00000000_cam\.txt: the principal point"):
        DTUDataset(folder, "train")


def test_malformed_camera_file_is_refused_at_once(folder):
    path = folder / "Cameras/train/00000006_cam.txt"
    lines = path.read_text().splitlines()
    lines[2] = "0.1 0.2 oops 0.4"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"00000006_cam\.txt, line 3: .*oops"):
        DTUDataset(folder, "train")


def test_depth_of_a_size_that_does_not_go_with_the_images(folder):
    path = folder / "Depths/scan2/depth_map_0004.pfm"
    path.write_bytes(b"Pf\n3 2\n-1\n" + bytes(24))
    with pytest.raises(UserError, match=r"depth_map_0004\.pfm: the map is 3x2.*80x64"):
        DTUDataset(folder, "val")[SampleRequest(0)]


@pytest.mark.parametrize("image_scale", [0.3, 0.001])
def test_scale_that_leaves_no_whole_pixels(tiny_dtu, image_scale):
    with pytest.raises(UserError, match="image_scale"):
        DTUDataset(tiny_dtu, "train", image_scale=image_scale)


def test_unknown_scan_or_view(tiny_dtu):
    dataset = DTUDataset(tiny_dtu, "train")
    with pytest.raises(UserError, match="scan1, scan2"):
        dataset.load_views("scan9", [0])
    with pytest.raises(UserError, match="no view 8"):
        dataset.load_views("scan1", [0, 8])


@pytest.mark.parametrize(
    "settings",
    [
        {"min_sources": 0},
        {"min_sources": 4},
        {"max_sources": 11},
        {"num_targets": 9},
        {"num_source_views": 0},
        {"scenes_per_batch": 0},
        {"num_workers": -1},
        {"val_views": -1},
        {"batches_per_epoch": -1},
        {"image_scale": 0.0},
        {"image_scale": 1.5},
        {"image_scale": float("nan")},
    ],
)
def test_settings_that_cannot_work(settings):
    with pytest.raises(UserError, match="must"):
        DataConfig(**settings)
