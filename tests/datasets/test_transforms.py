"""The reader of ``transforms.json`` on self-written scenes, drawn through lenses by OpenCV."""

import json
import math

import numpy as np
import pytest
import torch
from dots import POINTS, arc_poses, assert_dots_match, draw_dots, lens_pixels
from PIL import Image

from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from utils.cameras import project
from utils.errors import UserError

SIZE = HEIGHT, WIDTH = 240, 320
INTRINSICS = {"fl_x": 260.0, "fl_y": 250.0, "cx": 150.0, "cy": 127.0, "w": WIDTH, "h": HEIGHT}
PERSPECTIVE = {"k1": -0.18, "k2": 0.05, "p1": 0.004, "p2": -0.003, "k3": -0.01}
FISHEYE = {"k1": -0.05, "k2": 0.02, "k3": -0.004, "k4": 0.001}
OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])


def read(root, size=None, **options):
    return open_scene("transforms", root, ReadOptions(size, **options))


FOCAL, CENTER = (260.0, 250.0), (150.0, 127.0)


def write_scene(root, shared=None, lens=(), count=4, name="images/{:04d}.png"):
    """Write photos through a lens; frames stand in the file from last to first."""
    poses, frames = arc_poses(count), []
    (root / "images").mkdir(parents=True, exist_ok=True)
    for view, pose in enumerate(poses):
        path = name.format(view)
        draw_dots(lens_pixels(pose, FOCAL, CENTER, lens), SIZE).save(root / path)
        frames.insert(0, {"file_path": path, "transform_matrix": (pose @ OPENGL).tolist()})
    write_file(root, {**(shared or {**INTRINSICS, **dict(lens)}), "frames": frames})
    return poses


def write_file(root, content):
    (root / "transforms.json").write_text(json.dumps(content), encoding="utf-8")


def load_file(root):
    return json.loads((root / "transforms.json").read_text())


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "scène 1"
    write_scene(folder)
    return folder


@pytest.mark.parametrize("size", [None, (120, 160), (130, 301), (300, 400)])
@pytest.mark.parametrize(
    "lens",
    [{}, PERSPECTIVE, FISHEYE | {"camera_model": "OPENCV_FISHEYE"}, FISHEYE | {"is_fisheye": True}],
    ids=["none", "perspective", "fisheye", "is_fisheye"],
)
def test_dots_appear_where_the_cameras_say(tmp_path, lens, size):
    poses = write_scene(tmp_path, lens=lens)
    scene = read(tmp_path, size)
    views = assert_dots_match(scene, POINTS)
    assert views.size == scene.image_size == (size or SIZE)
    torch.testing.assert_close(views.cameras.c2w, torch.tensor(poses).float(), atol=1e-6, rtol=0)
    factors = scene.image_size[1] / WIDTH, scene.image_size[0] / HEIGHT
    expected = torch.tensor([260.0 * factors[0], 250.0 * factors[1]])
    torch.testing.assert_close(views.cameras.intrinsics[0, :2, :2].diagonal(), expected)


def test_pixels_that_no_photo_shows_leave_the_mask(tmp_path):
    write_scene(tmp_path, lens={"k1": 0.2})
    full = read(tmp_path).load_views([0]).masks[0]
    half = read(tmp_path, scale=0.5).load_views([0]).masks[0]
    assert full[HEIGHT // 2].float().mean() > 0.8
    assert not full[0].any() and not full[:, 0].any()
    # A pixel of the half-size mask counts if all four that it covers do.
    blocks = full.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).permute(0, 2, 1, 3).flatten(2)
    assert torch.equal(half, blocks.all(-1))
    # Pixels beyond the fold of the polynomial: r (1 - 1.2 r^2) turns back at r = 1 / sqrt(3.6).
    write_file(tmp_path, {**load_file(tmp_path), "k1": -1.2})
    mask, fold = read(tmp_path).load_views([0]).masks[0], 1 / math.sqrt(3.6)
    columns, rows = torch.arange(WIDTH) + 0.5, torch.arange(HEIGHT) + 0.5
    radius = torch.hypot((columns - 150.0) / 260.0, (rows[:, None] - 127.0) / 250.0)
    assert mask[radius < 0.97 * fold].all() and not mask[radius > 1.03 * fold].any()


def test_mask_files_are_undistorted_too(tmp_path):
    write_scene(tmp_path, lens=PERSPECTIVE)
    black = np.full(SIZE, 255, np.uint8)
    x, y = lens_pixels(arc_poses(4)[0], FOCAL, CENTER, PERSPECTIVE)[0].astype(int)
    black[y - 3 : y + 4, x - 3 : x + 4] = 0
    Image.fromarray(black).save(tmp_path / "mask.png")
    content = load_file(tmp_path)
    content["frames"][-1]["mask_path"] = "mask.png"
    write_file(tmp_path, content)
    views = read(tmp_path).load_views([0, 1])
    dots, _ = project(torch.tensor(POINTS).float(), views.cameras)
    columns, rows = dots[0].long().unbind(-1)
    assert views.masks[0, rows, columns].tolist() == [False, True, True]
    assert views.masks[1, rows, columns].all()
    content["frames"][-1]["mask_path"] = "masks/none.png"
    write_file(tmp_path, content)
    with pytest.raises(UserError, match=r"0000\.png.*the mask 'masks/none\.png' is missing"):
        read(tmp_path)


def test_views_stand_in_the_order_of_the_numbers_in_their_names(tmp_path):
    poses = write_scene(tmp_path / "scène 1", count=11, name="images/{}.png")
    scene = read(tmp_path / "scène 1")
    assert scene.name == "scène 1" and scene.view_ids == tuple(range(11))
    assert scene.view_names == tuple(f"images/{view}.png" for view in range(11))
    torch.testing.assert_close(scene.cameras.c2w, torch.tensor(poses).float())
    same = read(tmp_path / "scène 1" / "transforms.json")
    torch.testing.assert_close(same.cameras.c2w, scene.cameras.c2w)


@pytest.mark.parametrize("spelling", [".\\images\\{}", "images/{}.PNG", "./images/{}.jpg"])
def test_spellings_of_paths(root, spelling):
    content = load_file(root)
    for view, entry in enumerate(reversed(content["frames"])):
        entry["file_path"] = spelling.format(f"{view:04d}")
    write_file(root, content)
    assert_dots_match(read(root), POINTS)


def test_intrinsics_of_a_frame_come_before_shared_ones(root):
    content = load_file(root)
    own = {**INTRINSICS, "fl_x": 180.0, "fl_y": 200.0, "cx": 170.0, "k1": -0.1}
    content["frames"][1].update(own)
    write_file(root, content)
    pixels = lens_pixels(arc_poses(4)[2], (180.0, 200.0), (170.0, 127.0), {"k1": -0.1})
    draw_dots(pixels, SIZE).save(root / "images/0002.png")
    scene = read(root)
    assert_dots_match(scene, POINTS)
    assert scene.cameras.intrinsics[:, 0, 0].tolist() == [260.0, 260.0, 180.0, 260.0]


def test_field_of_view_in_place_of_focal_lengths(tmp_path):
    write_scene(tmp_path, shared={"camera_angle_x": 2 * math.atan(WIDTH / 520.0)})
    expected = torch.tensor([[260.0, 0, 160], [0, 260, 120], [0, 0, 1]])
    torch.testing.assert_close(read(tmp_path).cameras.intrinsics[0], expected)
    write_scene(tmp_path, shared={"camera_angle_x": 1.0, "camera_angle_y": 0.5})
    matrix = read(tmp_path).cameras.intrinsics[0]
    assert matrix[0, 0].item() == pytest.approx(WIDTH / 2 / math.tan(0.5), rel=1e-5)
    assert matrix[1, 1].item() == pytest.approx(HEIGHT / 2 / math.tan(0.25), rel=1e-5)


def test_near_and_far_by_argument_file_and_estimate(root):
    estimated = read(root).near_far
    torch.testing.assert_close(estimated, torch.tensor([1.2, 10.0]), rtol=1e-3, atol=0)
    write_file(root, {**load_file(root), "near": 1, "far": 6.5})
    assert read(root).near_far.tolist() == [1.0, 6.5]
    assert read(root, near_far=(2.0, 3.0)).near_far.tolist() == [2.0, 3.0]
    with pytest.raises(UserError, match=r"transforms\.json, with the given range: near is 3"):
        read(root, near_far=(3.0, 2.0))


def test_photos_without_a_frame_are_reported_once(root, caplog):
    Image.new("RGB", (8, 8)).save(root / "images/extra.png")
    assert [len(read(root).view_ids) for _ in range(2)] == [4, 4]
    assert caplog.text.count("1 images beside the others have no camera") == 1
    assert "extra.png" in caplog.text


def test_photos_of_several_sizes(root):
    content = load_file(root)
    Image.open(root / "images/0001.png").resize((160, 120)).save(root / "images/0001.png")
    content["frames"][2].update({key: value / 2 for key, value in INTRINSICS.items()})
    write_file(root, content)
    assert_dots_match(read(root, (180, 240)), POINTS, tolerance=0.3)
    assert_dots_match(read(root, cover=(60, 80)), POINTS, tolerance=0.3)
    with pytest.raises(UserError, match=r"0001\.png: the image is 160x120.*320x240"):
        read(root)
