"""A run is not resumed on data that are no longer those it was trained on."""

import numpy as np
import pytest
from PIL import Image
from training_runs import train

from datasets.data_fingerprint import check_unchanged, fingerprint_data
from datasets.data_source import DataSource
from datasets.scene_dataset import PixelCache, SamplingRules, SceneDataset
from utils.checkpoints import load_safely
from utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")


def replace_image(path):
    """Put another image in its place: same name, size and kind."""
    values = np.asarray(Image.open(path))
    Image.fromarray(values[::-1]).save(path)


def remove_view(root):
    for path in root.glob("Rectified/scan1*/rect_003_*"):
        path.unlink()


def swap_scans(root):
    first, second = sorted((root / "Rectified").iterdir())
    first.rename(root / "x")
    second.rename(first)
    (root / "x").rename(second)


def move_cameras(root):
    for path in root.glob("Cameras/**/*_cam.txt"):
        lines = path.read_text().splitlines()
        # The first row of the extrinsic ends with a translation in millimetres.
        lines[1] = " ".join([*lines[1].split()[:3], str(float(lines[1].split()[3]) + 20)])
        path.write_text("\n".join(lines))


CHANGES = {
    "replaced": (
        lambda root: replace_image(next(root.glob("Rectified/scan1*/rect_003_*"))),
        "scan1: 1 images are replaced",
    ),
    "removed": (remove_view, "scan1: . images are missing .*target views, there are"),
    "swapped": (swap_scans, "scan1: .* images are replaced .*; scan2: .* images are replaced"),
    "moved cameras": (move_cameras, "scan1: its cameras have changed"),
}


def parts(root):
    rules = SamplingRules(4, 1, 2)
    return [SceneDataset(DataSource("dtu", root), "train", rules, PixelCache(0))]


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_is_named(dtu_copy, name):
    change, match = CHANGES[name]
    recorded = fingerprint_data(parts(dtu_copy))
    check_unchanged(recorded, parts(dtu_copy))
    change(dtu_copy)
    with pytest.raises(UserError, match=match):
        check_unchanged(recorded, parts(dtu_copy))


def test_a_missing_scene_is_named(dtu_copy, write_dtu_lists):
    recorded = fingerprint_data(parts(dtu_copy))
    write_dtu_lists(dtu_copy, {"train": ["scan1"]})
    with pytest.raises(UserError, match="scene scan2 is missing; there were 16 target views"):
        check_unchanged(recorded, parts(dtu_copy))


def test_general_training_goes_on_with_moved_data_and_not_with_others(general, dtu_copy, tmp_path):
    _, last = train(general, tmp_path / "runs", "--datadir", dtu_copy, at=2)
    assert set(load_safely(last)["SceneDataModule"]["data"]["scenes"]) == {"scan1", "scan2"}
    moved = dtu_copy.rename(dtu_copy.with_name("moved"))
    train(general, tmp_path / "runs", "--datadir", moved, "--ckpt", last, at=4)
    replace_image(next(moved.glob("Rectified/scan1*/rect_003_*")))
    with pytest.raises(UserError, match=r"1 images are replaced \(rect_003.*--init_ckpt"):
        train(general, tmp_path / "runs", "--datadir", moved, "--ckpt", last)


def test_fine_tuning_names_the_photographs_that_are_others(scene, dtu_copy, tmp_path):
    data = ("--datadir", dtu_copy / "scan2")
    _, last = train(scene, tmp_path / "runs", *data, at=3)
    view = load_safely(last)["vggt_nerf_scene"]["train_ids"][0]
    (changed,) = dtu_copy.glob(f"Rectified/scan2*/rect_{view + 1:03d}_3_*")
    replace_image(changed)
    with pytest.raises(UserError, match=f"1 of .* have changed .{changed.name}.*without --ckpt"):
        train(scene, tmp_path / "runs", *data, "--ckpt", last)
