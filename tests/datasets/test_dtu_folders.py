"""Folders of DTU: which scans are found, and what is wrong with bad ones."""

import io
import logging
import shutil
from functools import partial

import pytest
from PIL import Image
from scene_layouts import open_dataset

from datasets.formats.registry import choose_scenes
from datasets.views import SampleRequest
from utils.errors import UserError

dataset = partial(open_dataset, "dtu")


def scene_names(data):
    samples = (data[SampleRequest(index, num_sources=1)] for index in range(len(data)))
    return list(dict.fromkeys(sample.scene for sample in samples))


def test_scans_are_listed_counted_and_named(dtu_copy, caplog):
    folder = dtu_copy
    shutil.rmtree(folder / "lists")
    shutil.move(folder / "Rectified/scan2_train", folder / "Rectified/scan8_train")
    with caplog.at_level(logging.INFO):
        data = dataset(folder, "val")
    assert scene_names(data) == ["scan1", "scan8"]
    assert "2 of 16 scans found; missing: scan21, scan30, scan31, ..." in caplog.text
    assert "2 scenes, 2 target views" in caplog.text
    assert choose_scenes("dtu", folder, "scan8, scan1") == [folder / "scan8", folder / "scan1"]
    with pytest.raises(UserError, match="no scan 'scan9'.*scan8"):
        choose_scenes("dtu", folder, "scan9")


def test_scans_with_too_few_views_are_left_out(dtu_copy, caplog):
    folder = dtu_copy
    for path in (folder / "Rectified/scan1_train").glob("rect_00[4-8]_*"):
        path.unlink()
    assert scene_names(dataset(folder)) == ["scan2"]
    assert "1 of 2 scenes have fewer than 4 views and are left out, scan1" in caplog.text
    assert "3 of 8 views have image and camera; for example, there is no rect_004" in caplog.text
    for path in (folder / "Rectified").rglob("rect_00[4-8]_*"):
        path.unlink()
    with pytest.raises(UserError, match=r"4 are needed.*the largest has 3"):
        dataset(folder)


def png(width, height):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def rewrite(folder, name, change):
    """``change`` is the new content or a function of the old one; None removes a folder."""
    for path in folder.glob(name) if name != "." else [folder]:
        if change is None:
            shutil.rmtree(path)
        else:
            path.write_bytes(change(path.read_bytes()) if callable(change) else change)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (".", None, r"dtu: no such data folder.*Rectified"),
        ("Cameras", None, r"00000000_cam\.txt.*Depths, Rectified, lists"),
        ("Rectified", None, r"none of the 2 scans.*Rectified/scan1_train/"),
        ("Rectified/*/rect_001_3*", b"", r"rect_001_3_r5000\.png"),
        ("Rectified/*/rect_001_3*", b"\x89PNG\r\n\x1a\n", r"rect_001_3_r5000"),
        ("Rectified/scan2_train/rect_001_3*", png(20, 16), r"scan2.* 20x16, but .*scan1"),
        (
            "Cameras/train/*",
            lambda text: text.replace(b"24 0 ", b"361.5 0 8"),
            r"00000000_cam\.txt: the principal point",
        ),
        (
            "Cameras/train/00000006*",
            lambda text: text.replace(b"0", b"oops", 1),
            r"00000006_cam\.txt, line 2: .*oops",
        ),
    ],
)
def test_bad_folders_are_refused_at_once(dtu_copy, name, change, message):
    rewrite(dtu_copy, name, change)
    with pytest.raises(UserError, match=message):
        dataset(dtu_copy)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Rectified/*/rect_005_3*", lambda content: content[:-100], "rect_005.*damaged"),
        ("Rectified/*/rect_005_3*", png(40, 32), r"rect_005_3_r5000.*image is 40x32.*80x64"),
        ("Depths/*/*_0004.pfm", b"Pf\n3 2\n-1\n" + bytes(24), r"_0004\.pfm.*map is 3x2.*80x64"),
    ],
)
def test_damage_inside_a_file_is_refused_when_it_is_read(dtu_copy, name, change, message):
    rewrite(dtu_copy, name, change)
    with pytest.raises(UserError, match=message):
        dataset(dtu_copy, "val")[SampleRequest(0)]
