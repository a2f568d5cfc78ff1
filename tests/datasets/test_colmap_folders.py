"""Folders that COLMAP, and programs that read its models, make: where photos and lists lie."""

import shutil

import pytest
import torch

from datasets.config import DataChoice
from datasets.formats.registry import open_scene, recognise_format, split_scenes
from datasets.protocols import scene_tasks
from utils.errors import UserError


@pytest.fixture
def root(tmp_path, write_layout):
    return write_layout("colmap", tmp_path / "scene a")


@pytest.mark.parametrize("keeps_sparse", [True, False])
def test_undistorted_photos_of_the_automatic_reconstruction(root, keeps_sparse):
    whole = open_scene("colmap", root)
    for number in "01":
        shutil.copytree(root / "sparse" / "0", root / "dense" / number / "sparse")
        shutil.copytree(root / "images", root / "dense" / number / "images")
    # The second model has no image.
    images = root / "dense" / "1" / "sparse" / "images.bin"
    images.write_bytes(bytes(8))
    shutil.rmtree(root / "images")
    if not keeps_sparse:
        shutil.rmtree(root / "sparse")
    assert recognise_format(root) == "colmap"
    scene = open_scene("colmap", root)
    assert scene.name == "scene a" and {path.parts[-3] for path in scene.image_files} == {"0"}
    torch.testing.assert_close(scene.cameras.c2w, whole.cameras.c2w)


def test_the_folders_of_eth3d(root):
    whole = open_scene("colmap", root)
    expected = whole.load_views([2]).images
    (root / "sparse" / "0").rename(root / "dslr_calibration_undistorted")
    (root / "images").rename(root / "photos")
    (root / "images").mkdir()
    (root / "photos").rename(root / "images" / "dslr_images_undistorted")
    model = root / "dslr_calibration_undistorted" / "images.bin"
    content = model.read_bytes()
    for number in range(8):
        name = f"{number:03d}.png\0".encode()
        content = content.replace(name, b"dslr_images_undistorted/" + name)
    model.write_bytes(content)
    assert recognise_format(root) == "colmap"
    scene = open_scene("colmap", root)
    torch.testing.assert_close(scene.cameras.c2w, whole.cameras.c2w)
    assert scene.load_views([2]).images.equal(expected)


def test_photos_that_the_model_names_by_paths_of_another_machine(root):
    model = root / "sparse" / "0" / "images.bin"
    content = model.read_bytes()
    for number in range(8):
        name = f"{number:03d}.png\0".encode()
        content = content.replace(name, b"/home/else/project/frames/" + name)
    model.write_bytes(content)
    assert len(open_scene("colmap", root).view_ids) == 8
    model.write_bytes(content.replace(b"/home/else/", b"/home/../.."))
    with pytest.raises(UserError, match="run COLMAP with --image_path"):
        open_scene("colmap", root)


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        ({"sparse/0/test.txt": "003.png\n006.png\n"}, {"test": (3, 6)}),
        ({"val_list.txt": "images/001.png\n", "train_list.txt": "000.png\n002.png\n"}, None),
        ({"validation_list.txt": "001.png\n", "test_list.txt": "003.png\n"}, None),
    ],
)
def test_lists_of_test_images_are_kept_to(root, files, splits, caplog):
    for name, text in files.items():
        (root / name).write_text(text)
    scene = open_scene("colmap", root)
    found = dict(scene.splits)
    if splits:
        assert found == splits | {"train": (0, 1, 2, 4, 5, 7)}
    elif "train_list.txt" in files:
        assert found == {"train": (0, 2), "val": (1,)}
    else:
        assert found == {"train": (0, 2, 4, 5, 6, 7), "val": (1,), "test": (3,)}
    assert f"{next(iter(files)).rpartition('/')[2]}: " in caplog.text
    # Such lists are of images, not of scenes.
    assert split_scenes("colmap", root, "val") == [root]
    (task,) = scene_tasks(DataChoice(dataset_name="colmap", datadir=str(root), n_views=1))
    held = found.get("test") or found["val"]
    assert task.targets == held and not set(held).intersection(*task.sources)
