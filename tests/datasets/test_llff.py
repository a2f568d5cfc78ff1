"""The LLFF reader on self-written scenes: dots must appear where the cameras say."""

import shutil
import zipfile

import numpy as np
import pytest
import torch
from dots import assert_dots_match, draw_dots
from PIL import Image

from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from utils.errors import UserError

FULL = (600, 800)
FOCAL = 700.0
POINTS = torch.tensor([[-0.8, 0.5, 0.2], [0.6, 0.4, -0.1], [0.1, -0.5, 0.3]])


def read(root, size=None, **options):
    return open_scene("llff", root, ReadOptions(size, **options))


def house_poses(count):
    """Cameras in a row that look a little inwards and roll a little; OpenCV axes."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    for view in range(count):
        offset = view - (count - 1) / 2
        yaw, roll = -0.08 * offset, 0.1 * offset
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        tilt = np.array(
            [[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]]
        )
        poses[view, :3, :3] = turn @ tilt
        poses[view, :3, 3] = [0.4 * offset, 0.1 * offset**2, -4.0]
    return poses


def llff_rows(poses, near=2.0, far=7.0):
    """The file's rows: down, right, backwards; its own height, width, focal; bounds."""
    right, down, forward, center = poses[:, :3].transpose(2, 0, 1)
    hwf = np.tile([*FULL, FOCAL], (len(poses), 1))
    matrices = np.stack([down, right, -forward, center, hwf], -1).reshape(len(poses), 15)
    bounds = np.stack([near + np.arange(len(poses)) / 10, np.full(len(poses), far)], -1)
    return np.concatenate([matrices, bounds], 1)


def dots(pose, size):
    w2c = np.linalg.inv(pose)
    in_camera = POINTS.numpy() @ w2c[:3, :3].T + w2c[:3, 3]
    scale = np.array([size[1] / FULL[1], size[0] / FULL[0]])
    middle = np.array([size[1], size[0]]) / 2
    return draw_dots(in_camera[:, :2] / in_camera[:, 2:] * FOCAL * scale + middle, size, 3.0)


def write_scene(root, folders=(("images_2", (300, 400)),), count=5, name="Bild {:02d}.png"):
    poses = house_poses(count)
    for folder, size in folders:
        (root / folder).mkdir(parents=True)
        for view in range(count):
            dots(poses[view], size).save(root / folder / name.format(view))
    np.save(root / "poses_bounds.npy", llff_rows(poses))
    return poses


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("llff") / "hörsaal 1"
    write_scene(root)
    return root


@pytest.fixture
def folder(tmp_path, written):
    """A copy, to be damaged."""
    return shutil.copytree(written, tmp_path / "scene")


@pytest.mark.parametrize("size", [None, (300, 400), (150, 200), (170, 331), (450, 500)])
def test_dots_appear_where_the_cameras_say(written, size):
    scene = read(written, size)
    views = assert_dots_match(scene, POINTS, 0.1)
    assert views.size == scene.image_size == (size or (300, 400))
    assert views.masks.all() and not views.depths.any()


def test_container_says_what_was_read(written):
    scene = read(written, scale=0.5)
    assert (scene.name, scene.image_size) == ("hörsaal 1", (150, 200))
    assert scene.view_ids == (0, 1, 2, 3, 4) and scene.view_names[1] == "Bild 01.png"
    torch.testing.assert_close(scene.near_far, torch.tensor([0.8 * 2.0, 1.2 * 7.0]))
    expected = torch.tensor(house_poses(5)).float()
    torch.testing.assert_close(scene.cameras.c2w, expected, atol=1e-6, rtol=0)
    assert read(written, near_far=(1.0, 3.0)).near_far.tolist() == [1, 3]


def test_views_stand_in_the_order_of_numbers_and_keep_their_cameras(tmp_path):
    """Rows go by name, so that the camera of 2.png comes after that of 10.png."""
    poses, names = house_poses(3), ["1.png", "10.png", "2.png"]
    (tmp_path / "images").mkdir()
    for name, pose in zip(names, poses, strict=True):
        dots(pose, (300, 400)).save(tmp_path / "images" / name)
    np.save(tmp_path / "poses_bounds.npy", llff_rows(poses))
    scene = read(tmp_path)
    assert scene.view_names == ("1.png", "2.png", "10.png")
    assert_dots_match(scene, POINTS, 0.1)


def test_smallest_images_that_suffice_are_read(tmp_path):
    sizes = {"images": (600, 800), "images_2": (300, 400), "images_4": (150, 200)}
    write_scene(tmp_path, sizes.items(), count=2)
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


def test_a_view_of_another_size_is_resized_or_refused(folder):
    image = Image.open(folder / "images_2/Bild 03.png").resize((200, 150))
    image.save(folder / "images_2/Bild 03.png")
    assert read(folder, (75, 100)).load_views([3]).size == (75, 100)
    message = r"Bild 03\.png: the image is 200x150.*400x300.*--image_size"
    with pytest.raises(UserError, match=message):
        read(folder)


def test_missing_folder_file_and_images(tmp_path, folder):
    with pytest.raises(UserError, match=r"nowhere: no such folder.*poses_bounds\.npy"):
        read(tmp_path / "nowhere")
    shutil.move(folder / "images_2", folder / "pictures")
    with pytest.raises(UserError, match=r"images_4/.*the folder holds pictures, poses_bounds\.npy"):
        read(folder)
    (folder / "poses_bounds.npy").unlink()
    with pytest.raises(UserError, match=r"poses_bounds\.npy: the file is missing"):
        read(folder)


def test_images_without_cameras_and_cameras_without_images(folder):
    shutil.copy(folder / "images_2/Bild 00.png", folder / "images_2/Bild 05.png")
    with pytest.raises(UserError, match=r"images_2: holds 6 images.*Bild 05\.png.*cameras for 5"):
        read(folder)
    (folder / "images_2/Bild 05.png").unlink()
    (folder / "images_2/Bild 02.png").unlink()
    with pytest.raises(UserError, match=r"images_2: holds 4 images.*cameras for 5"):
        read(folder)


def test_damaged_turned_and_changed_images(folder):
    path = folder / "images_2/Bild 02.png"
    scene = read(folder, (100, 100))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(read(folder, (100, 100)).view_ids) == 5
    with pytest.raises(UserError, match=r"Bild 02\.png: cannot read the image"):
        scene.load_views([2])
    Image.new("RGB", (40, 30)).save(path)
    with pytest.raises(UserError, match=r"Bild 02\.png: 40x30 pixels, but 400x300"):
        scene.load_views([2])
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"Bild 02\.png: cannot read the image"):
        read(folder, (100, 100))
    Image.new("RGB", (300, 400)).save(path)
    with pytest.raises(UserError, match=r"Bild 02\.png: the image is 300x400.*800x600.*turned"):
        read(folder, (100, 100))


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        (3, np.nan, "not finite"),
        (16, np.inf, "not finite"),
        (3, 1e300, "not finite"),
        (0, 3.0, "rotation of the pose"),
        (4, 0.0, "height, width and focal length are 0, 800"),
        (9, -800.0, "no camera"),
        (14, 1e9, "700|1e[+]09"),
        (15, 0.0, "near is 0 and far 7"),
        (15, 8.0, "near is 8 and far 7"),
    ],
)
def test_impossible_values(folder, column, value, problem):
    rows = np.load(folder / "poses_bounds.npy")
    rows[2, column] = value
    np.save(folder / "poses_bounds.npy", rows)
    with pytest.raises(UserError, match=rf"poses_bounds\.npy, row 2.*({problem})"):
        read(folder)
    if column == 15:
        assert read(folder, near_far=(1.0, 3.0)).near_far.tolist() == [1, 3]


def test_mirrored_cameras(folder):
    rows = np.load(folder / "poses_bounds.npy")
    rows[:, [0, 5, 10]] *= -1
    np.save(folder / "poses_bounds.npy", rows)
    with pytest.raises(UserError, match=r"poses_bounds\.npy, row 0.*mirror image"):
        read(folder)


@pytest.mark.parametrize(
    "array",
    [
        *(np.zeros(shape) for shape in ((5, 15), (0, 17), 17)),
        *(np.zeros((5, 17), kind) for kind in (complex, "U3", object)),
        np.array(1.0),
    ],
)
def test_arrays_of_another_kind(folder, array):
    np.save(folder / "poses_bounds.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=r"poses_bounds\.npy: "):
        read(folder)


def test_files_that_are_no_array(folder):
    path = folder / "poses_bounds.npy"
    whole = path.read_bytes()
    promising = whole.replace(b"(5, 17)", b"(5555555555, 17)"[:7])
    for content in (b"", b"\x93NUMPY", whole[:100], whole[:-8], b"hello", whole[8:], promising):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"poses_bounds\.npy: "):
            read(folder)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", whole)
    with pytest.raises(UserError, match=r"poses_bounds\.npy: the file holds no array"):
        read(folder)
    with path.open("wb") as file:
        file.truncate(1 << 25)
    with pytest.raises(UserError, match="larger than"):
        read(folder)


# numpy remarks on headers that look as if Python 2 had written them.
@pytest.mark.filterwarnings("ignore:Reading `.npy`:UserWarning")
def test_random_damage_never_ends_in_another_error(folder):
    path = folder / "poses_bounds.npy"
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for place in generator.integers(0, 160, generator.integers(1, 4)):
            content[place] = generator.integers(256)
        path.write_bytes(content)
        try:
            read(folder, (30, 40))
        except UserError as error:
            assert "poses_bounds.npy" in str(error) or "images" in str(error)
