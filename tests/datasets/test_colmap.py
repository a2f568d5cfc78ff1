"""Our reading of COLMAP's files and cameras against COLMAP's own, and its sparse points."""

import re
import struct
import tracemalloc

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from datasets.formats.colmap import model as colmap_model
from datasets.formats.colmap.model import (
    MODEL_PARAMETERS,
    ColmapCamera,
    read_cameras,
    read_images,
    read_points,
)
from datasets.formats.colmap.reader import build_lens
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene, recognise_format
from utils.errors import UserError

COEFFICIENTS = {
    "SIMPLE_RADIAL": [-0.1],
    "RADIAL": [-0.1, 0.03],
    "OPENCV": [-0.1, 0.03, 0.004, -0.003],
    "FULL_OPENCV": [-0.1, 0.03, 0.004, -0.003, 0.01, 0.02, -0.01, 0.005],
    "OPENCV_FISHEYE": [-0.05, 0.02, -0.004, 0.001],
    "SIMPLE_RADIAL_FISHEYE": [-0.05],
    "RADIAL_FISHEYE": [-0.05, 0.02],
}
ONE_FOCAL = (
    *("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"),
    *("SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_FISHEYE"),
)
UNSUPPORTED = {
    *("FOV", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE"),
    *("SIMPLE_DIVISION", "DIVISION", "EUCM", "EQUIRECTANGULAR"),
}
POINTS = np.array([[-0.5, 0.3, 1.0], [0.4, 0.35, 1.2], [0.6, -0.4, 1.5], [0.0, 0.1, 1.0]])


@pytest.fixture
def pycolmap():
    return pytest.importorskip("pycolmap")


@pytest.mark.parametrize("model", sorted(set(MODEL_PARAMETERS) - UNSUPPORTED))
def test_lenses_bend_rays_as_colmap_does(pycolmap, model):
    focal = [260.0] if model in ONE_FOCAL else [260.0, 250.0]
    parameters = [*focal, 155.0, 118.0, *COEFFICIENTS.get(model, [])]
    theirs = pycolmap.Camera(model=model, width=320, height=240, params=parameters)
    assert len(theirs.params) == MODEL_PARAMETERS[model]
    ours = build_lens(ColmapCamera(model, 320, 240, tuple(theirs.params)), (240, 320), "x")
    # OpenCV's projection knows nothing of pixel centres, and COLMAP's convention is ours.
    fisheye, still = ours.model == "fisheye", np.zeros(3)
    project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
    points = POINTS[:, None] if fisheye else POINTS
    pixels, _ = project(points, still, still, ours.intrinsics.numpy(), np.array(ours.coefficients))
    expected = np.array([theirs.img_from_cam(point) for point in POINTS])
    np.testing.assert_allclose(pixels.reshape(-1, 2), expected, atol=1e-6)


@pytest.mark.parametrize("model", sorted(UNSUPPORTED))
def test_lenses_that_cannot_be_undone(model):
    camera = ColmapCamera(model, 320, 240, (260.0, 250.0, 160.0, 120.0, *([0.1] * 8)))
    with pytest.raises(UserError, match=f"{model} is not supported.*image_undistorter"):
        build_lens(camera, (240, 320), "x")


def test_a_model_goes_through_colmap_and_back(pycolmap, tmp_path, write_layout):
    root = write_layout("colmap", tmp_path / "scene")
    ours = open_scene("colmap", root)
    theirs = pycolmap.Reconstruction(str(root / "sparse" / "0"))
    for image in theirs.images.values():
        view = ours.view_names.index(image.name)
        w2c = torch.from_numpy(np.asarray(image.cam_from_world().matrix())).float()
        torch.testing.assert_close(ours.cameras.w2c[view, :3], w2c, atol=1e-3, rtol=1e-4)
    for kind in ("text", "binary"):
        copy = tmp_path / kind
        (copy / "sparse" / "0").mkdir(parents=True)
        (copy / "images").symlink_to(root / "images")
        getattr(theirs, f"write_{kind}")(str(copy / "sparse" / "0"))
        again = open_scene("colmap", copy)
        torch.testing.assert_close(again.cameras.c2w, ours.cameras.c2w, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(again.near_far, ours.near_far)
        assert again.neighbours[0] == ours.neighbours[0]


def test_names_with_spaces_and_images_without_features(tmp_path):
    lines = ["# x", "3 1 0 0 0 0 0 0 1 a b/ü c.png", "", "4 1 0 0 0 0 0 0 1 d", ""]
    (tmp_path / "images.txt").write_text("\n".join(lines))
    images = read_images(tmp_path / "images.txt").values()
    assert [image.name for image in images] == ["a b/ü c.png", "d"]


POSITIONS = [(0.0, 1.0, 2.0), (3.0, 4.0, 5.0), (6.0, 7.0, 8.0)]
TRACKS = [(7, 2), (2, 9), (9, 7, 7)]
"""Image numbers; the last image saw the last point twice."""


def points_file():
    content = struct.pack("<Q", len(TRACKS))
    for number, (position, track) in enumerate(zip(POSITIONS, TRACKS, strict=True)):
        content += struct.pack("<Q3d3BdQ", 10 + number, *position, 1, 2, 3, 0.5, len(track))
        content += b"".join(struct.pack("<II", image, 99) for image in track)
    return content


def test_points_are_found_by_the_images_that_saw_them(tmp_path):
    (tmp_path / "points3D.bin").write_bytes(points_file())
    points = read_points(tmp_path / "points3D.bin")
    np.testing.assert_array_equal(points.positions, POSITIONS)
    assert {n: list(seen) for n, seen in points.tracks.items()} == {7: [0, 2], 2: [0, 1], 9: [1, 2]}


@pytest.mark.parametrize("content", [None, b"", points_file()[:-5], points_file() + b"\0"])
def test_points_that_are_absent_or_damaged(tmp_path, content):
    path = tmp_path / "points3D.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)):
        read_points(path)


@pytest.mark.parametrize("start", ["", "\ufeff# list of images\n"])
@pytest.mark.parametrize("between", ["\n", "\n\n", "\n1.5 2 -1 3 4 -1\n"])
def test_text_of_images_with_and_without_lines_of_features(tmp_path, start, between):
    names = ["a.png", "b 1 2.png", "c.png"]
    lines = [f"{number} 1 0 0 0 0 0 0 1 {name}" for number, name in enumerate(names)]
    (tmp_path / "images.txt").write_text(start + between.join(lines), encoding="utf-8")
    assert [image.name for image in read_images(tmp_path / "images.txt").values()] == names


def write_text_model(root, digits, shift):
    """Write the model of a scene as text, moved."""
    model = root / "sparse" / "0"
    images = read_images(model / "images.bin")
    (model / "images.bin").unlink()
    lines = []
    for number, image in images.items():
        rotation = Rotation.from_quat(image.quaternion, scalar_first=True)
        moved = np.array(image.translation) - rotation.apply(shift)
        numbers = " ".join(f"{value:.{digits}g}" for value in (*image.quaternion, *moved))
        lines += [f"{number} {numbers} {image.camera} {image.name}", ""]
    (model / "images.txt").write_text("\n".join(lines))


@pytest.mark.parametrize(
    ("digits", "shift", "told"), [(6, 4e6, True), (17, 4e6, False), (6, 0.0, False)]
)
def test_six_digits_are_too_few_far_from_the_origin(
    tmp_path, write_layout, caplog, digits, shift, told
):
    root = write_layout("colmap", tmp_path / "scene")
    write_text_model(root, digits, [shift, 5e5, shift] if shift else [0.0] * 3)
    open_scene("colmap", root, ReadOptions(near_far=(300.0, 900.0)))
    assert ("positions are rounded to 10," in caplog.text) == told


@pytest.mark.parametrize("place", ["distorted/sparse", "colmap_sparse"])
def test_models_where_other_scripts_leave_them(tmp_path, write_layout, place):
    root = write_layout("colmap", tmp_path / "scene")
    expected = open_scene("colmap", root).cameras.c2w
    (root / place).parent.mkdir(exist_ok=True)
    (root / "sparse").rename(root / place)
    (root / "images").rename(root / "input")
    assert recognise_format(root) == "colmap"
    assert open_scene("colmap", root).cameras.c2w.equal(expected)


def test_photos_before_they_were_undistorted_are_left_aside(tmp_path, write_layout):
    root = write_layout("colmap", tmp_path / "scene")
    (root / "input").mkdir()
    for path in (root / "images").iterdir():
        Image.new("RGB", (86, 68)).save(root / "input" / path.name)
    photos = open_scene("colmap", root).read_view.photos
    assert {photo.path.parent.name for photo in photos} == {"images"}


def test_photos_without_the_folders_of_the_model(tmp_path, write_layout, caplog):
    root = write_layout("colmap", tmp_path / "scene")
    names = open_scene("colmap", root).view_names
    (root / "images" / "000.png").unlink()
    path = root / "sparse" / "0" / "images.bin"
    path.write_bytes(re.sub(rb"(\d{3}\.png)", rb"left/\1", path.read_bytes()))
    scene = open_scene("colmap", root)
    assert scene.view_names == tuple(f"left/{name}" for name in names[1:])
    assert "the photos of 1 of 8 images are missing" in caplog.text


@pytest.mark.parametrize("pattern", ["{}.png", "{}"])
def test_masks_beside_the_photos_count(tmp_path, write_layout, caplog, pattern):
    root = write_layout("colmap", tmp_path / "scene")
    (root / "masks").mkdir()
    for path in (root / "images").iterdir():
        mask = np.zeros((64, 80), np.uint8)
        mask[:, 40:] = 255
        Image.fromarray(mask).save(root / "masks" / pattern.format(path.name))
    views = open_scene("colmap", root).load_views([0])
    assert views.masks[0, :, 40:].all() and not views.masks[0, :, :40].any()
    assert "masks of 8 of 8 photos are used" in caplog.text


def test_features_take_no_memory(tmp_path):
    path, count = tmp_path / "images.bin", 10**6
    head = (
        struct.pack("<QI7dI", 1, 7, 1, 0, 0, 0, 0, 0, 0, 1) + b"a.png\0" + struct.pack("<Q", count)
    )
    path.write_bytes(head + bytes(24 * count))
    tracemalloc.start()
    try:
        assert read_images(path)[7].name == "a.png"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    path.write_bytes(head + bytes(24 * count - 1))
    with pytest.raises(UserError, match=rf"{count} entries are declared .* the file is truncated"):
        read_images(path)


@pytest.mark.parametrize("content", ["1 PINHOLE 8 6 9 9 4 3\n" * 2, "1 1 0 0 0 0 0 0 1 a\n\n" * 2])
def test_entries_that_are_there_twice(content, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=r"a\.txt: .*entry 1 appears twice"):
        (read_cameras if "PINHOLE" in content else read_images)(path)


def test_no_more_entries_than_any_model_has(tmp_path, monkeypatch):
    monkeypatch.setattr(colmap_model, "_MAX_ENTRIES", 2)
    path = tmp_path / "cameras.txt"
    for count in (2, 3):
        path.write_text("".join(f"{n} PINHOLE 8 6 9 9 4 3\n" for n in range(count)))
        if count == 2:
            assert len(read_cameras(path)) == 2
    with pytest.raises(UserError, match="more than 2 entries"):
        read_cameras(path)
