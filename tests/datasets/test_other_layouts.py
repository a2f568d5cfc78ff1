"""Layouts of papers and of telephone apps, against the same scene in ``transforms.json``."""

import json

import numpy as np
import pytest
import torch
from centered_scene import FOCAL, HEIGHT, WIDTH, save_images
from PIL import Image
from scipy.spatial.transform import Rotation

from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene, recognise_format
from utils.errors import UserError

OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
K = np.array([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1]])
SIZE = {"width": WIDTH, "height": HEIGHT}
OPTIONS = ReadOptions(near_far=(300.0, 900.0))


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_sdfstudio(root, scene):
    names = save_images(root, scene, "{:06d}_rgb.png")
    Image.new("L", (WIDTH, HEIGHT), 255).save(root / "mask.png")
    whole = np.eye(4)
    whole[:3, :3] = K
    frames = [
        {"rgb_path": name, "camtoworld": pose.tolist(), "intrinsics": whole.tolist()}
        | {"foreground_mask": "mask.png", "mono_depth_path": "depth.npy"}
        for name, pose in zip(names, scene.c2w, strict=True)
    ]
    box = {"near": 200.0, "far": 1000.0, "collider_type": "near_far"}
    content = {"frames": frames, "worldtogt": np.eye(4).tolist(), "scene_box": box, **SIZE}
    write_json(root / "meta_data.json", content)


def write_nsvf(root, scene):
    prefixes = "00001122"
    (root / "pose").mkdir(parents=True)
    (root / "rgb").mkdir()
    np.savetxt(root / "intrinsics.txt", K)
    for view, (image, pose) in enumerate(zip(scene.images, scene.c2w, strict=True)):
        name = f"{prefixes[view]}_{view:04d}"
        Image.fromarray(image).save(root / "rgb" / f"{name}.png")
        np.savetxt(root / "pose" / f"{name}.txt", pose)


def write_neus(root, scene):
    save_images(root / "image", scene)
    save_images(root / "mask", scene)
    whole = np.eye(4)
    whole[:3, :3] = K
    matrices = {f"world_mat_{view}": -2 * whole @ w2c for view, w2c in enumerate(scene.w2c)}
    others = {f"world_mat_inv_{view}": np.eye(4) for view in range(len(scene.w2c))}
    np.savez(root / "cameras_sphere.npz", scale_mat_0=np.eye(4), **matrices, **others)


def write_nerfies(root, scene):
    names = save_images(root / "rgb" / "1x", scene, "left_{:03d}.png")
    (root / "rgb" / "2x").mkdir()
    for name in names:
        with Image.open(root / "rgb" / "1x" / name) as image:
            image.resize((WIDTH // 2, HEIGHT // 2)).save(root / "rgb" / "2x" / name)
    ids = [name.removesuffix(".png") for name in names]
    for name, w2c, c2w in zip(ids, scene.w2c, scene.c2w, strict=True):
        camera = {"orientation": w2c[:3, :3].tolist(), "position": c2w[:3, 3].tolist()}
        camera |= {"focal_length": FOCAL, "principal_point": [WIDTH / 2, HEIGHT / 2]}
        camera |= {"skew": 0.0, "pixel_aspect_ratio": 1.0, "image_size": [WIDTH, HEIGHT]}
        camera |= {"radial_distortion": [0, 0, 0], "tangential": [0, 0]}
        write_json(root / "camera" / f"{name}.json", camera)
    lists = {"ids": ids, "train_ids": ids[::2], "val_ids": ids[1::2], "count": len(ids)}
    write_json(root / "dataset.json", lists)
    box = {"scale": 0.01, "center": [0.1, 0.2, 0.3], "near": 2.0, "far": 10.0}
    write_json(root / "scene.json", box)
    write_json(root / "metadata.json", {name: {"warp_id": 0} for name in ids})


def write_polycam(root, scene):
    save_images(root / "keyframes" / "corrected_images", scene, "{:d}.jpg")
    (root / "keyframes" / "depth").mkdir()
    for view, pose in enumerate(scene.c2w):
        matrix = pose @ OPENGL
        camera = {
            f"t_{row}{column}": matrix[row, column] for row in range(3) for column in range(4)
        }
        camera |= {"fx": FOCAL, "fy": FOCAL, "cx": WIDTH / 2, "cy": HEIGHT / 2, **SIZE}
        write_json(root / "keyframes" / "corrected_cameras" / f"{view}.json", camera)
        depth = Image.fromarray(np.full((HEIGHT // 4, WIDTH // 4), 1500 + view, np.uint16))
        depth.save(root / "keyframes" / "depth" / f"{view}.png")


def write_scannet(root, scene):
    save_images(root / "color", scene, "{:d}.png")
    whole = np.eye(4)
    whole[:3, :3] = K
    for folder in ("pose", "intrinsic"):
        (root / folder).mkdir()
    np.savetxt(root / "intrinsic" / "intrinsic_color.txt", whole)
    for view, pose in enumerate(scene.c2w):
        np.savetxt(root / "pose" / f"{view}.txt", pose)


def write_seven_scenes(root, scene):
    save_images(root, scene, "frame-{:06d}.color.png")
    np.savetxt(root / "camera-intrinsics.txt", K)
    for view, pose in enumerate(scene.c2w):
        np.savetxt(root / f"frame-{view:06d}.pose.txt", pose)


def write_record3d(root, scene, folder="EXR_RGBD", photos="rgb", name="metadata.json"):
    save_images(root / folder / photos, scene, "{:d}.jpg")
    poses = [
        [*Rotation.from_matrix((pose @ OPENGL)[:3, :3]).as_quat(), *pose[:3, 3]]
        for pose in scene.c2w
    ]
    content = {
        "K": K.T.ravel().tolist(),
        "w": WIDTH,
        "h": HEIGHT,
        "poses": np.array(poses).tolist(),
    }
    write_json(root / folder / name, content)


def write_r3d(root, scene):
    write_record3d(root, scene, "", "rgbd", "metadata")


NO_TURNS = {"K": K.T.ravel().tolist(), **SIZE, "poses": [[0.0] * 7] * 8}
LAYOUTS = {
    "sdfstudio": write_sdfstudio,
    "nsvf": write_nsvf,
    "neus": write_neus,
    "nerfies": write_nerfies,
    "scannet": write_scannet,
    "seven_scenes": write_seven_scenes,
    "polycam": write_polycam,
    "record3d": write_record3d,
    "r3d": write_r3d,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cameras_and_images_are_those_of_the_scene(layout, tmp_path, layouts, centered_scene):
    root = tmp_path / "capture"
    LAYOUTS[layout](root, centered_scene)
    name = recognise_format(root)
    assert name == {"r3d": "record3d"}.get(layout, layout)
    assert recognise_format(root.parent) == name
    expected = open_scene("transforms", layouts["transforms"], OPTIONS)
    scene = open_scene(name, root, OPTIONS)
    torch.testing.assert_close(scene.cameras.c2w, expected.cameras.c2w, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(scene.cameras.intrinsics, expected.cameras.intrinsics)
    difference = scene.load_views([1]).images - expected.load_views([1]).images
    assert difference.abs().mean() < 0.05


def test_what_layouts_say_beside_cameras(tmp_path, centered_scene, caplog):
    for name in ("sdfstudio", "nsvf", "neus", "polycam"):
        LAYOUTS[name](tmp_path / name, centered_scene)
    scene = open_scene("sdfstudio", tmp_path / "sdfstudio")
    assert scene.near_far.tolist() == [200.0, 1000.0]
    assert "these keys are not used: mono_depth_path" in caplog.text
    assert "have no camera" not in caplog.text
    splits = open_scene("nsvf", tmp_path / "nsvf", OPTIONS).splits
    assert splits == {"train": (0, 1, 2, 3), "val": (4, 5), "test": (6, 7)}
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "neus" / "mask" / "002.png")
    write_nerfies(tmp_path / "nerfies", centered_scene)
    half = open_scene("nerfies", tmp_path / "nerfies", ReadOptions((HEIGHT // 2, WIDTH // 2)))
    assert half.near_far.tolist() == [200.0, 1000.0]
    assert half.splits == {"train": (0, 2, 4, 6), "val": (1, 3, 5, 7)}
    assert {path.parent.name for path in half.image_files} == {"2x"}
    torch.testing.assert_close(half.cameras.intrinsics[0, 0, 0], torch.tensor(FOCAL / 2))
    assert "nerfies: time stamps are not used" in caplog.text
    masks = open_scene("neus", tmp_path / "neus", OPTIONS).load_views([1, 2]).masks
    assert masks[0].any() and not masks[1].any()
    depths = open_scene("polycam", tmp_path / "polycam", OPTIONS).load_views([3]).depths
    torch.testing.assert_close(depths, torch.full_like(depths, 1.503))


@pytest.mark.parametrize(
    ("ids", "told"),
    [(3, "must list images"), ([[1]], "must list images"), (["../x"], "not the name of an image")],
)
def test_lists_of_nerfies_must_name_images(tmp_path, centered_scene, ids, told):
    write_nerfies(tmp_path, centered_scene)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"train_ids": ids}))
    with pytest.raises(UserError, match=rf"dataset\.json: train_ids.*{told}"):
        open_scene("nerfies", tmp_path)


def test_photos_whose_pose_a_scan_lost_are_left_out(tmp_path, centered_scene, caplog):
    write_scannet(tmp_path, centered_scene)
    np.savetxt(tmp_path / "pose" / "2.txt", np.full((4, 4), -np.inf))
    scene = open_scene("scannet", tmp_path, OPTIONS)
    assert [name.rpartition("/")[2] for name in scene.view_names][:3] == ["0.png", "1.png", "3.png"]
    assert "1 photos whose pose was lost are left out" in caplog.text


def test_the_first_line_of_nsvf_gives_focal_length_and_centre(tmp_path, centered_scene):
    write_nsvf(tmp_path, centered_scene)
    text = f"{FOCAL} {WIDTH / 2} {HEIGHT / 2} 0.\n0. 0. 0.\n0.\n1.\n{HEIGHT} {WIDTH}\n"
    (tmp_path / "intrinsics.txt").write_text(text)
    own = open_scene("nsvf", tmp_path, OPTIONS).cameras.intrinsics[0]
    torch.testing.assert_close(own, torch.from_numpy(K).float())


@pytest.mark.parametrize(
    ("layout", "file", "content", "told"),
    [
        ("sdfstudio", "meta_data.json", "{}", "'frames' must be a list"),
        ("sdfstudio", "meta_data.json", '{"frames": [{}]}', "frame 0: camtoworld: expected 4x4"),
        ("nsvf", "intrinsics.txt", "a b c", "expected numbers"),
        ("nsvf", "pose/0_0000.txt", "1 2 3", r"0_0000\.txt: expected 16 finite numbers"),
        ("nsvf", "pose/0_0001.txt", None, r"0_0001\.txt: cannot read the camera"),
        ("scannet", "pose/1.txt", None, r"pose/1\.txt: cannot read the camera"),
        ("scannet", "intrinsic/intrinsic_color.txt", "1 2", r"intrinsic_color\.txt: expected 3"),
        ("seven_scenes", "camera-intrinsics.txt", None, "missing. Write the intrinsics"),
        ("neus", "cameras_sphere.npz", "no archive", "cannot read the cameras"),
        ("neus", "image/007.png", None, "holds 8 cameras .* 7 photos"),
        ("nerfies", "dataset.json", "{}", "'frames' is empty"),
        ("nerfies", "camera/left_001.json", "{}", r"left_001\.json: orientation"),
        ("nerfies", "camera/left_001.json", None, r"left_001\.json: no such file"),
        ("nerfies", "scene.json", "{}", "near, far, scale: expected 3"),
        ("polycam", "keyframes/corrected_cameras/1.json", "{}", r"1\.json: t_00 to t_23"),
        ("record3d", "EXR_RGBD/metadata.json", "{}", "metadata.json: poses"),
        ("record3d", "EXR_RGBD/metadata.json", json.dumps(NO_TURNS), "is not a rotation"),
        ("record3d", "EXR_RGBD/rgb/0.jpg", None, "7 photos; each needs"),
    ],
)
def test_damaged_files_are_named(layout, file, content, told, tmp_path, centered_scene):
    LAYOUTS[layout](tmp_path, centered_scene)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(UserError, match=told):
        open_scene(layout, tmp_path, OPTIONS)
