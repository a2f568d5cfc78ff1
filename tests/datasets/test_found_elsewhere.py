"""Photos that are linked to, share names, are of kinds that are not read, or come in an order."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from datasets.formats.registry import find_scenes, open_scene, recognise_format
from utils.errors import UserError


@pytest.fixture
def root(tmp_path, write_layout):
    return write_layout("transforms", tmp_path / "scene a")


def test_photos_of_cameras_makers_are_named(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.CR2").touch()
    with pytest.raises(UserError, match=r"holds 1 photos .*a\.CR2; convert them to JPEG"):
        recognise_format(tmp_path)


def test_links_to_photos_elsewhere(root, tmp_path, caplog):
    (root / "images").rename(tmp_path / "store")
    (root / "images").mkdir()
    for number in range(8):
        name = f"{number:03d}.png"
        (root / "images" / name).symlink_to(tmp_path / "store" / name)
    Image.new("RGB", (9, 9)).save(tmp_path / "store" / "other.png")
    (tmp_path / "store" / "003.png").unlink()
    assert len(open_scene("transforms", root).view_ids) == 7
    assert "have no camera" not in caplog.text


def test_names_in_lists_that_several_folders_have(root):
    def into_folders(frames):
        for number, frame in enumerate(frames):
            frame["file_path"] = f"images/{'ab'[number % 2]}/{number // 2}.png"

    for number in range(8):
        target = root / "images" / "ab"[number % 2] / f"{number // 2}.png"
        target.parent.mkdir(exist_ok=True)
        (root / "images" / f"{number:03d}.png").rename(target)
    path = root / "transforms.json"
    content = json.loads(path.read_text())
    into_folders(content["frames"])
    content |= {"train_filenames": ["0.png"], "test_filenames": ["1.png", "b/2.png"]}
    path.write_text(json.dumps(content))
    assert open_scene("transforms", root).splits == {"train": (0, 4), "test": (1, 5, 6)}


@pytest.mark.parametrize("written", ["images/{}.png.png", "images/shot_0361.png{}.png"])
def test_names_to_which_a_suffix_was_appended_twice(root, written):
    whole = open_scene("transforms", root).load_views([3]).images
    path = root / "transforms.json"
    content = json.loads(path.read_text())
    for number, frame in enumerate(content["frames"]):
        frame["file_path"] = written.format(f"{number:03d}")
    path.write_text(json.dumps(content))
    assert open_scene("transforms", root).load_views([3]).images.equal(whole)


def test_numbers_of_the_mvsnet_layout_need_no_zeros(tmp_path, write_layout):
    root = write_layout("blendedmvs", tmp_path / "scene")
    whole = open_scene("blendedmvs", root).load_views([3])
    for path in root.rglob("0000000*"):
        path.rename(path.with_name(path.name.removeprefix("0000000")))
    views = open_scene("blendedmvs", root).load_views([3])
    assert views.images.equal(whole.images) and views.cameras.c2w.equal(whole.cameras.c2w)
    assert views.depths.equal(whole.depths) and views.depths.any()


def test_images_that_the_scripts_of_llff_used(tmp_path, write_layout):
    root = write_layout("llff", tmp_path / "scene")
    whole = open_scene("llff", root)
    kept = [0, 2, 3, 4, 6, 7]
    np.save(root / "poses_bounds.npy", np.load(root / "poses_bounds.npy")[kept])
    (root / "sparse").mkdir()
    with pytest.raises(UserError, match=r"cameras for 6; .*--dataset_name colmap"):
        open_scene("llff", root)
    (root / "view_imgs.txt").write_text("".join(f"{number:03d}.png\n" for number in kept))
    scene = open_scene("llff", root)
    assert scene.cameras.c2w.equal(whole.cameras.c2w[kept])
    assert scene.load_views([1]).images.equal(whole.load_views([2]).images)


def test_scenes_follow_the_numbers_in_their_names(tmp_path):
    for number in (10, 2, 1):
        (tmp_path / f"scene{number}").mkdir()
        (tmp_path / f"scene{number}" / "transforms.json").touch()
    found = [folder.name for folder in find_scenes("transforms", tmp_path)]
    assert found == ["scene1", "scene2", "scene10"]


def test_views_follow_the_numbers_in_names_of_either_case(root):
    names = ["IMG_1.png", "img_2.png", "IMG_3.png", "Img_4.png", "IMG_10.png", "img_11.png"]
    content = json.loads((root / "transforms.json").read_text())
    for number, name in enumerate(names):
        (root / "images" / f"{number:03d}.png").rename(root / "images" / name)
        content["frames"][number]["file_path"] = f"images/{name}"
    content["frames"] = content["frames"][5::-1]
    (root / "transforms.json").write_text(json.dumps(content))
    read = [name.removeprefix("images/") for name in open_scene("transforms", root).view_names]
    assert read == names


def test_upper_case_suffixes_of_a_scan(tiny_dtu, tmp_path):
    copy = shutil.copytree(tiny_dtu, tmp_path / "dtu")
    for path in copy.glob("Rectified/*/*.png"):
        path.rename(path.with_suffix(".PNG"))
    again, whole = (open_scene("dtu", root / "scan1") for root in (copy, tiny_dtu))
    assert again.load_views([0]).images.equal(whole.load_views([0]).images)
