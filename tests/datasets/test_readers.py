"""Every reader on the same scene in its own layout: the same cameras, images and depth."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from scene_layouts import WRITERS

from datasets.formats.format_table import FORMATS
from datasets.formats.options import ReadOptions
from datasets.formats.registry import find_scenes, open_scene, recognise_format, split_scenes
from datasets.posed_scene import PosedScene
from utils.cameras import pixel_grid, project, unproject
from utils.errors import UserError

LOSSY = {"blendedmvs": 0.05}


@pytest.fixture(scope="module")
def scenes(layouts):
    return {name: open_scene(name, root) for name, root in layouts.items()}


@pytest.fixture
def copied(layouts, tmp_path):
    """Copies a scene, to be changed."""

    def copy(name, folder="scene ü"):
        return shutil.copytree(layouts[name], tmp_path / folder)

    return copy


@pytest.mark.parametrize("name", WRITERS)
def test_cameras_are_those_that_rendered(scenes, centered_scene, name):
    scene: PosedScene = scenes[name]
    truth = torch.from_numpy(centered_scene.c2w)
    assert scene.image_size == (64, 80) and len(scene.view_ids) == 8
    torch.testing.assert_close(scene.cameras.c2w.double(), truth, atol=1e-3, rtol=1e-5)
    intrinsics = torch.tensor([[96.0, 0, 40], [0, 96, 32], [0, 0, 1]])
    torch.testing.assert_close(scene.cameras.intrinsics, intrinsics.expand(8, 3, 3))


@pytest.mark.parametrize("name", WRITERS)
def test_pixels_are_those_of_the_files(layouts, scenes, centered_scene, name):
    images = scenes[name].load_views([0, 7]).images
    truth = torch.from_numpy(centered_scene.images[[0, 7]] / 255).permute(0, 3, 1, 2).float()
    if name == "blender":
        assert (images[..., :10] == 1).all()
        black = open_scene("blender", layouts["blender"], ReadOptions(background=0.0))
        assert (black.load_views([3]).images[..., :10] == 0).all()
        images, truth = images[..., 10:], truth[..., 10:]
    assert (images - truth).abs().mean() <= LOSSY.get(name, 1e-7)


@pytest.mark.parametrize("name", ["transforms", "blendedmvs", "dtu"])
def test_depth_lifts_a_pixel_to_where_the_neighbour_sees_it(scenes, tiny_dtu, name):
    scene = open_scene("dtu", tiny_dtu / "scan1") if name == "dtu" else scenes[name]
    views = scene.load_views([0, 1])
    pixels = pixel_grid(64, 80, torch.device("cpu"))
    points = unproject(pixels, views.depths[0].flatten(), views.cameras[0])
    there, depths = project(points, views.cameras[1])
    inside = ((there > 1) & (there < torch.tensor([79.0, 63.0]))).all(-1)
    columns, rows = there[inside].long().unbind(-1)
    errors = (views.depths[1][rows, columns] / depths[inside] - 1).abs()
    assert inside.float().mean() > 0.4 and errors.median() < 5e-3


def test_ranges_neighbours_and_splits_come_from_the_files(layouts, scenes, centered_scene):
    points = torch.from_numpy(centered_scene.points(0)).float()
    depths = project(points, scenes["colmap"].cameras[0])[1]
    expected = torch.tensor([0.8 * depths.min(), 1.2 * depths.max()])
    torch.testing.assert_close(scenes["colmap"].range_of([0]), expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(scenes["blendedmvs"].range_of([2, 4]), torch.tensor([302.0, 904]))
    torch.testing.assert_close(scenes["blendedmvs"].near_far, torch.tensor([300.0, 907]))
    torch.testing.assert_close(scenes["blender"].range_of([2]), torch.tensor([300.0, 900]))
    for name, root in layouts.items():
        chosen = open_scene(name, root, ReadOptions(near_far=(123.0, 1234.0)))
        assert chosen.range_of([1, 2]).tolist() == chosen.near_far.tolist() == [123, 1234]
    assert scenes["blendedmvs"].ranked_neighbours(2)[:3] == (7, 6, 5)
    assert set(scenes["blendedmvs"].ranked_neighbours(2)) == set(range(8)) - {2}
    assert set(scenes["colmap"].neighbours[0]) == set(range(1, 8))
    assert scenes["blender"].splits == {"train": (0, 1, 2, 3, 4), "val": (5,), "test": (6, 7)}


def test_formats_are_recognised(layouts, tiny_dtu, tmp_path):
    assert [recognise_format(root) for root in layouts.values()] == list(layouts)
    assert recognise_format(tiny_dtu) == recognise_format(tiny_dtu / "scan1") == "dtu"
    with pytest.raises(UserError, match="no scene of a known|of a known format"):
        recognise_format(tmp_path)
    with pytest.raises(UserError, match="no such data folder"):
        recognise_format(tmp_path / "absent")


@pytest.mark.parametrize("options", [{"size": (32, 40)}, {"scale": 0.5}, {"cover": (20, 40)}])
@pytest.mark.parametrize("name", WRITERS)
def test_another_size_keeps_the_geometry(layouts, scenes, name, options):
    small = open_scene(name, layouts[name], ReadOptions(**options))
    point = torch.tensor([[10.0, -5.0, 3.0]])
    full, half = (project(point, scene.cameras)[0] for scene in (scenes[name], small))
    torch.testing.assert_close(half * 2, full, atol=1e-3, rtol=1e-4)
    assert small.load_views([1]).images.shape == (1, 3, 32, 40)


def test_scenes_of_a_folder_and_its_lists(copied, tmp_path):
    for scene in ("b c", "ä"):
        copied("colmap", scene)
    (tmp_path / "notes").mkdir()
    # Loops of links do not hang.
    (tmp_path / "ä" / "images" / "again").symlink_to(tmp_path / "ä")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [path.name for path in find_scenes("colmap", tmp_path)] == ["b c", "ä"]
    assert find_scenes("colmap", tmp_path / "ä") == [tmp_path / "ä"]
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("x\ny\n")
    assert split_scenes("colmap", tmp_path, "train") == [tmp_path / "x", tmp_path / "y"]
    assert len(split_scenes("colmap", tmp_path, "val")) == 2
    assert len(open_scene("colmap", tmp_path / "ä").view_ids) == 8


def test_nested_folders_of_high_resolution_archives(copied, tmp_path):
    copied("blendedmvs", "s/s/s")
    assert find_scenes("blendedmvs", tmp_path) == [tmp_path / "s"]
    assert open_scene("blendedmvs", tmp_path / "s").name == "s"


@pytest.mark.parametrize("name", FORMATS)
def test_empty_and_missing_folders(name, tmp_path):
    for folder in (tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match=str(folder.parent if name == "dtu" else folder)):
            open_scene(name, folder)


def test_photos_and_cameras_without_each_other_are_reported(copied, caplog):
    root = copied("colmap", "colmap")
    (root / "images" / "003.png").rename(root / "images" / "zebra.png")
    assert len(open_scene("colmap", root).view_ids) == 7
    assert "003.png" in caplog.text and "zebra.png" in caplog.text
    root = copied("blendedmvs")
    (root / "cams" / "00000002_cam.txt").unlink()
    (root / "blended_images" / "00000005.jpg").unlink()
    scene = open_scene("blendedmvs", root)
    assert len(scene.view_ids) == 6 and scene.neighbours[0] == [5, 4]
    assert "00000002" in caplog.text and "00000005" in caplog.text


def test_shrunk_photos_of_other_names_and_sizes(copied, caplog):
    root = copied("colmap")
    (root / "images_2").mkdir()
    for number, path in enumerate(sorted((root / "images").iterdir())):
        with Image.open(path) as image:
            image.resize((40, 32)).save(root / "images_2" / f"photo{number}.png")
    scene = open_scene("colmap", root, ReadOptions(size=(32, 40)))
    assert "order of names" in caplog.text
    torch.testing.assert_close(scene.cameras.intrinsics[0, 0, 0], torch.tensor(48.0))
    assert scene.load_views([0]).size == (32, 40)


@pytest.mark.parametrize(
    ("name", "damaged", "content"),
    [
        ("colmap", "images/004.png", b""),
        ("colmap", "images/004.png", b"\x89PNG\r\n\x1a\nbroken"),
        ("colmap", "sparse/0/images.bin", b"\xff" * 80),
        ("colmap", "sparse/0/points3D.bin", b""),
        ("blendedmvs", "cams/00000001_cam.txt", b"extrinsic\nnan"),
        ("blendedmvs", "cams/pair.txt", b"7\n1\n"),
        ("blendedmvs", "blended_images/00000003.jpg", b""),
        ("blender", "transforms_val.json", b"{}"),
        ("blender", "train/r_0.png", b""),
        ("transforms", "images/004.png", b""),
    ],
)
def test_damage_is_named_at_once(copied, name, damaged, content):
    root = copied(name)
    (root / damaged).write_bytes(content)
    with pytest.raises(UserError, match=damaged.rpartition("/")[2].replace(".", r"\.")):
        open_scene(name, root)


def test_depth_maps_that_are_cut_or_hold_no_depth(copied):
    root = copied("blendedmvs", "cut")
    path = root / "rendered_depth_maps" / "00000001.pfm"
    path.write_bytes(path.read_bytes()[:-8])
    scene = open_scene("blendedmvs", root)
    assert scene.load_views([0]).depths.max() > 0
    with pytest.raises(UserError, match=r"00000001\.pfm"):
        scene.load_views([1])
    root = copied("transforms")
    values = np.load(root / "0.npy").astype(np.float64)
    values[0, :4] = [np.inf, np.nan, -1, 1e300]
    np.save(root / "0.npy", values)
    depth = open_scene("transforms", root).load_views([0]).depths[0]
    assert (depth[0, :4] == 0).all() and (depth[1:] > 0).all()
