"""Cameras of Bundler and Meshroom, against the same scene in ``transforms.json``."""

import json
import shlex
import shutil

import numpy as np
import pytest
import torch
from centered_scene import FOCAL, HEIGHT, WIDTH, save_images

from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene, recognise_format
from utils.errors import UserError

FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
OPTIONS = ReadOptions(near_far=(300.0, 900.0))


def write_bundler(root, scene, folder="photos", cameras="bundle.out"):
    names = save_images(root / folder, scene, "a 0 {:03d}.png")
    names += ["not placed.png"]
    lines = ["# Bundle file v0.3", f"{len(names)} 1"]
    for w2c in (FLIP @ scene.w2c).tolist():
        lines += [f"{FOCAL} 0 0", *(" ".join(map(str, row[:3])) for row in w2c[:3])]
        lines += [" ".join(str(row[3]) for row in w2c[:3])]
    lines += ["0 0 0"] * 5 + ["1.0 2.0 3.0", "255 0 0", "1 0 12 3.5 -7.5"]
    (root / cameras).parent.mkdir(exist_ok=True)
    (root / cameras).write_text("\n".join(lines))
    guesses = [f" 0 {FOCAL}", ""] * len(names)
    listed = [f"C:\\project\\{name}{guess}" for name, guess in zip(names, guesses, strict=False)]
    (root / "list.txt").write_text("\n".join(listed) + "\n")


def write_meshroom(root, scene, version=(1, 2, 5)):
    names = save_images(root / "images", scene)
    lens = {"intrinsicId": "7", "width": str(WIDTH), "height": str(HEIGHT)}
    lens |= {"type": "pinhole", "distortionType": "radialk3", "distortionParams": ["0"] * 3}
    lens |= {"principalPoint": ["0", "0"], "pixelRatio": "1"}
    lens |= {"sensorWidth": "36", "focalLength": str(FOCAL / WIDTH * 36)}
    if version < (1, 2, 2):
        lens |= {"pxFocalLength": [str(FOCAL)] * 2, "type": "radial3"}
        del lens["focalLength"], lens["distortionType"]
    if version < (1, 2, 1):
        lens |= {"principalPoint": [str(WIDTH / 2), str(HEIGHT / 2)], "pxFocalLength": str(FOCAL)}
    views, poses = [{"viewId": "99", "poseId": "99", "intrinsicId": "7", "path": "/x/lost.jpg"}], []
    for view, (name, pose) in enumerate(zip(names, scene.c2w, strict=True)):
        ids = {"viewId": str(view), "poseId": str(view), "intrinsicId": "7"}
        views.append(ids | {"path": f"/home/else/{name}"})
        rotation = [str(number) for number in pose[:3, :3].ravel()]
        transform = {"rotation": rotation, "center": [str(number) for number in pose[:3, 3]]}
        poses.append({"poseId": str(view), "pose": {"transform": transform, "locked": "0"}})
    content = {"version": [str(part) for part in version], "views": views}
    content |= {"intrinsics": [lens], "poses": poses}
    (root / "cameras.sfm").write_text(json.dumps(content))


WAYS = {
    "bundler": write_bundler,
    "bundler, in folders": lambda root, scene: write_bundler(
        root, scene, "images", "bundle/bundle.out"
    ),
    "meshroom": write_meshroom,
    "meshroom 2021.1": lambda root, scene: write_meshroom(root, scene, (1, 2)),
    "meshroom 2021.2": lambda root, scene: write_meshroom(root, scene, (1, 2, 1)),
}


@pytest.mark.parametrize("way", WAYS)
def test_cameras_are_those_of_the_scene(way, tmp_path, layouts, centered_scene, caplog):
    root = tmp_path / "capture"
    WAYS[way](root, centered_scene)
    name = recognise_format(root)
    assert name == way.split()[0].rstrip(",")
    expected = open_scene("transforms", layouts["transforms"], OPTIONS)
    scene = open_scene(name, root, OPTIONS)
    torch.testing.assert_close(scene.cameras.c2w, expected.cameras.c2w, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(scene.cameras.intrinsics, expected.cameras.intrinsics)
    assert scene.load_views([1]).images.equal(expected.load_views([1]).images)
    assert "1 of 9 photos are left out: not registered, or missing" in caplog.text


def test_distortion_of_bundler_is_undone(tmp_path, centered_scene):
    write_bundler(tmp_path, centered_scene)
    path = tmp_path / "bundle.out"
    straight = open_scene("bundler", tmp_path, OPTIONS).load_views([0])
    path.write_text(path.read_text().replace(f"{FOCAL} 0 0", f"{FOCAL} 0.3 0.1"))
    bent = open_scene("bundler", tmp_path, OPTIONS).load_views([0])
    middle = (..., slice(HEIGHT // 2 - 4, HEIGHT // 2 + 4), slice(WIDTH // 2 - 4, WIDTH // 2 + 4))
    assert (bent.images[middle] - straight.images[middle]).abs().mean() < 0.02
    # A barrel that is undone pushes the border out of the photo, and that does not count.
    assert not bent.masks[0, 0, 0] and bent.masks[0][middle[1:]].all()


def change_lens(**values):
    def change(root):
        content = json.loads((root / "cameras.sfm").read_text())
        content["intrinsics"][0] |= values
        (root / "cameras.sfm").write_text(json.dumps(content))

    return change


def change(**values):
    def damage(root):
        content = json.loads((root / "cameras.sfm").read_text())
        for name, value in values.items():
            content[name][-1] |= value
        (root / "cameras.sfm").write_text(json.dumps(content))

    return damage


def write(name, text):
    return lambda root: (root / name).write_text(text)


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("bundler", lambda root: (root / "list.txt").unlink(), "names no photos, its list.txt"),
        ("bundler", write("bundle.out", "# v\n9 1\n1 2"), r"bundle\.out: cameras: expected"),
        ("bundler", write("bundle.out", ""), "should hold 9 cameras"),
        ("bundler", write("bundle.out", "# v\n" + "9" * 5000), "should hold 9 cameras.*'999"),
        ("bundler", write("bundle.out", "# v\n8 3\n"), "should hold 9 cameras.*says '8 3'"),
        ("meshroom", write("cameras.sfm", "{}"), r"cameras\.sfm: version: expected"),
        ("meshroom", write("cameras.sfm", '{"version": ["1"]}'), "holds no poses; give"),
        ("meshroom", change_lens(type="fisheye4", distortionType=None), "'fisheye4' are not read"),
        ("meshroom", change_lens(pixelRatio="2"), "only square pixels"),
        ("meshroom", change_lens(distortionType="x" * 5000), "type .x{80}. are not read"),
        ("meshroom", change_lens(distortionParams=["1"]), "view 1: distortionParams"),
        ("meshroom", change(poses={"poseId": "0"}), "two of its poses have the poseId 0"),
        ("meshroom", change(poses={"pose": True}), "view 8: expected a pose with a transform"),
        ("meshroom", change(poses={"pose": {"transform": "x"}}), "view 8: expected a pose with"),
        ("meshroom 2021.1", change_lens(pxFocalLength=[1, 2, 3]), "pxFocalLength must be a number"),
    ],
)
def test_what_cannot_be_read_is_named(name, damage, told, tmp_path, centered_scene):
    WAYS[name](tmp_path, centered_scene)
    damage(tmp_path)
    with pytest.raises(UserError, match=told):
        open_scene(name.split()[0], tmp_path, OPTIONS)


@pytest.mark.parametrize(("key", "lost"), [("poses", "poseId"), ("views", "intrinsicId")])
def test_views_with_an_unreadable_id_are_left_out(key, lost, tmp_path, centered_scene, caplog):
    WAYS["meshroom"](tmp_path, centered_scene)
    change(**{key: {lost: ["x"]}})(tmp_path)
    assert len(open_scene("meshroom", tmp_path, OPTIONS).view_ids) == 7
    assert "2 of 9 photos are left out" in caplog.text


@pytest.fixture
def run_printed():
    """Type the command that the refusal of a folder ends with."""

    def run(folder, start):
        with pytest.raises(UserError) as error:
            recognise_format(folder)
        command = shlex.split(start + str(error.value).rpartition(start)[2])
        assert command[0] == "cp" and len(command) == 3
        shutil.copy(*command[1:])

    return run


def test_results_in_a_cache_are_copied_by_the_printed_command(
    tmp_path, centered_scene, run_printed
):
    write_meshroom(tmp_path, centered_scene)
    place = tmp_path / "MeshroomCache" / "StructureFromMotion" / "0a1b"
    place.mkdir(parents=True)
    (tmp_path / "cameras.sfm").rename(place / "cameras.sfm")
    run_printed(tmp_path, "cp ")
    assert recognise_format(tmp_path) == "meshroom"
    (tmp_path / "bundle").mkdir()
    write_bundler(tmp_path / "bundle", centered_scene, cameras="project.out")
    run_printed(tmp_path / "bundle", "cp ")
    assert recognise_format(tmp_path / "bundle") == "bundler"
