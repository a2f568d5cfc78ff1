"""The LLFF reader on self-written scenes: dots must appear where the cameras say."""

import shutil
import zipfile

import numpy as np
import pytest
import torch
from dots import POINTS, arc_poses, assert_dots_match, draw_dots, lens_pixels
from PIL import Image

from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from utils.errors import UserError

FULL = (600, 800)
FOCAL = 700.0
NAMES = [f"Bild {view:02d}.png" for view in range(5)]


def read(root, size=None, **options):
    return open_scene("llff", root, ReadOptions(size, **options))


def llff_rows(poses, near=2.0, far=7.0):
    """The file's rows: down, right, backwards; its own height, width, focal; bounds."""
    right, down, forward, center = poses[:, :3].transpose(2, 0, 1)
    hwf = np.tile([*FULL, FOCAL], (len(poses), 1))
    matrices = np.stack([down, right, -forward, center, hwf], -1).reshape(len(poses), 15)
    bounds = np.stack([near + np.arange(len(poses)) / 10, np.full(len(poses), far)], -1)
    return np.concatenate([matrices, bounds], 1)


def write_scene(root, names=NAMES, **folders):
    """``folders`` are given by their sizes; names are those that rows go by."""
    poses = arc_poses(len(names))
    for folder, size in folders.items():
        (root / folder).mkdir(parents=True)
        focal, center = FOCAL * np.divide(size, FULL)[::-1], np.array(size[::-1]) / 2
        for name, pose in zip(names, poses, strict=True):
            draw_dots(lens_pixels(pose, focal, center), size, 3.0).save(root / folder / name)
    np.save(root / "poses_bounds.npy", llff_rows(poses))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("llff") / "hörsaal 1"
    write_scene(root, images_2=(300, 400))
    return root


@pytest.fixture
def folder(tmp_path, written):
    """A copy, to be damaged."""
    return shutil.copytree(written, tmp_path / "scene")


def refused(root, match, size=None):
    with pytest.raises(UserError, match=match):
        read(root, size)


@pytest.mark.parametrize("size", [None, (300, 400), (150, 200), (170, 331), (450, 500)])
def test_dots_appear_where_the_cameras_say(written, size):
    scene = read(written, size)
    views = assert_dots_match(scene, POINTS, 0.1)
    assert views.size == scene.image_size == (size or (300, 400))
    assert views.masks.all() and not views.depths.any()
    assert (scene.name, scene.view_ids) == ("hörsaal 1", (0, 1, 2, 3, 4))
    assert scene.view_names == tuple(NAMES)
    torch.testing.assert_close(scene.near_far, torch.tensor([0.8 * 2.0, 1.2 * 7.0]))
    expected = torch.tensor(arc_poses(5)).float()
    torch.testing.assert_close(scene.cameras.c2w, expected, atol=1e-6, rtol=0)


def test_views_stand_in_the_order_of_numbers_and_keep_their_cameras(tmp_path):
    """Rows go by name, so that the camera of 2.png comes after that of 10.png."""
    write_scene(tmp_path, ["1.png", "10.png", "2.png"], images=(300, 400))
    scene = read(tmp_path)
    assert scene.view_names == ("1.png", "2.png", "10.png")
    assert_dots_match(scene, POINTS, 0.1)


def test_smallest_images_that_suffice_are_read(tmp_path):
    write_scene(tmp_path, NAMES[:2], images=FULL, images_2=(300, 400), images_4=(150, 200))
    (tmp_path / "images_8").mkdir()
    for options, expected in [
        ({"size": (150, 200)}, "images_4"),
        ({"size": (160, 160)}, "images_2"),
        ({"size": (301, 300)}, "images"),
        ({"size": (900, 900)}, "images"),
        ({"scale": 0.5}, "images_2"),
        ({"cover": (100, 120)}, "images_4"),
        ({"longest_side": 400}, "images_2"),
        ({}, "images"),
    ]:
        scene = open_scene("llff", tmp_path, ReadOptions(**options))
        assert {photo.path.parent.name for photo in scene.read_view.photos} == {expected}


def test_missing_files_and_images_of_another_number(tmp_path, folder):
    refused(tmp_path / "nowhere", r"nowhere: no such folder.*poses_bounds\.npy")
    images = folder / "images_2"
    shutil.copy(images / "Bild 00.png", images / "Bild 05.png")
    refused(folder, r"images_2: holds 6 images.*Bild 05\.png.*cameras for 5")
    (images / "Bild 05.png").unlink()
    (images / "Bild 02.png").unlink()
    refused(folder, r"images_2: holds 4 images.*cameras for 5")
    images.rename(folder / "pictures")
    refused(folder, r"images_4/.*the folder holds pictures, poses_bounds\.npy")
    (folder / "poses_bounds.npy").unlink()
    refused(folder, r"poses_bounds\.npy: the file is missing")


def test_damaged_turned_and_changed_images(folder):
    path, size = folder / "images_2/Bild 02.png", (75, 100)
    scene = read(folder, size)
    with Image.open(path) as image:
        image.resize((200, 150)).save(path)
    assert read(folder, size).load_views([2]).size == size
    refused(folder, r"Bild 02\.png: the image is 200x150.*400x300.*--image_size")
    with pytest.raises(UserError, match=r"Bild 02\.png: 200x150 pixels, but 400x300"):
        scene.load_views([2])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"Bild 02\.png: cannot read the image"):
        read(folder, size).load_views([2])
    path.write_bytes(b"")
    refused(folder, r"Bild 02\.png: cannot read the image", size)
    Image.new("RGB", (300, 400)).save(path)
    refused(folder, r"Bild 02\.png: the image is 300x400.*800x600.*rotated", size)


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        (3, np.nan, "not finite"),
        (16, np.inf, "not finite"),
        (3, 1e300, "not finite"),
        (0, 3.0, "rotation of the pose"),
        (4, 0.0, "height and width are 0 and 800"),
        (9, -800.0, "must be positive"),
        (14, 1e9, "700|1e[+]09"),
    ],
)
def test_impossible_values(folder, column, value, problem):
    rows = np.load(folder / "poses_bounds.npy")
    rows[2, column] = value
    np.save(folder / "poses_bounds.npy", rows)
    refused(folder, rf"poses_bounds\.npy, row 2.*({problem})")


@pytest.mark.parametrize("near", [0.0, -0.35, 1e-9, 8.0])
def test_bounds_that_are_no_range_are_left_out(folder, near, caplog):
    whole, rows = read(folder).near_far, np.load(folder / "poses_bounds.npy")
    rows[2, 15] = near
    np.save(folder / "poses_bounds.npy", rows)
    torch.testing.assert_close(read(folder).near_far, whole, rtol=0.2, atol=0)
    assert "the bounds of 1 rows are not 0 < near < far, or near" in caplog.text
    assert "left out: row 2" in caplog.text
    rows[:, 15] = near
    np.save(folder / "poses_bounds.npy", rows)
    near, far = read(folder).near_far.tolist()
    assert 0 < near < far and "in no row the bounds are 0 < near < far" in caplog.text
    assert read(folder, near_far=(1.0, 3.0)).near_far.tolist() == [1, 3]


def test_mirrored_cameras(folder):
    rows = np.load(folder / "poses_bounds.npy")
    rows[:, [0, 5, 10]] *= -1
    np.save(folder / "poses_bounds.npy", rows)
    refused(folder, r"poses_bounds\.npy, row 0.*mirror image")


def test_files_that_are_no_array_or_another(folder):
    path = folder / "poses_bounds.npy"
    whole = path.read_bytes()
    promising = whole.replace(b"(5, 17)", b"(5555555555, 17)"[:7])
    for content in (b"", b"\x93NUMPY", whole[:100], whole[:-8], b"hello", whole[8:], promising):
        path.write_bytes(content)
        refused(folder, r"poses_bounds\.npy: ")
    for array in (
        *(np.zeros(shape) for shape in ((5, 15), (0, 17), 17, ())),
        *(np.zeros((5, 17), kind) for kind in (complex, "U3", object)),
    ):
        np.save(path, array, allow_pickle=True)
        refused(folder, r"poses_bounds\.npy: ")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", whole)
    refused(folder, r"poses_bounds\.npy: the list of cameras is not an array")
    with path.open("wb") as file:
        file.truncate(1 << 25)
    refused(folder, "larger than")


# numpy remarks on headers that look as if Python 2 had written them.
@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
def test_random_damage_of_the_header_never_ends_in_another_error(folder):
    path = folder / "poses_bounds.npy"
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for place in generator.integers(0, 160, generator.integers(1, 4)):
            content[place] = generator.integers(256)
        path.write_bytes(content)
        try:
            read(folder, (30, 40))
        except UserError as error:
            assert "poses_bounds.npy" in str(error) or "images" in str(error)
