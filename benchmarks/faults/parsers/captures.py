"""Readers of captures, reconstructions, shards and videos, each with a scene of three photos."""

from __future__ import annotations

import json
import struct
import tempfile
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from benchmarks.faults.parsers.layouts import DEPTH
from benchmarks.faults.parsers.samples import (
    LENS,
    OPENGL_POSES,
    POSES,
    SIZE,
    Parser,
    json_file,
    photo_files,
    scene_parsers,
    text_file,
)
from datasets.formats.registry import open_scene
from datasets.formats.shards import write_scene
from datasets.photos.preparation import collect_photos

_BUNDLE, _VIEW_LIST = "bundle/bundle.out", "sparse/0/test.txt"


def capture_parsers() -> list[Parser]:
    """Return the readers of all captures, with one damaged file of each kind."""
    return [
        *scene_parsers("colmap", _colmap(), [f"sparse/0/{name}.bin" for name in _COLMAP]),
        *scene_parsers("colmap", {**_colmap(), _VIEW_LIST: b"1.png # held out\n"}, [_VIEW_LIST]),
        *scene_parsers("bundler", _bundler(), [_BUNDLE, "list.txt"]),
        *scene_parsers("meshroom", _meshroom(), ["cameras.sfm"]),
        *scene_parsers("meshroom", _early_meshroom(), ["sfm.json"]),
        *scene_parsers("scannet", _scannet(), ["intrinsic/intrinsic_color.txt", "pose/1.txt"]),
        *scene_parsers(
            "seven_scenes", _seven_scenes(), ["camera-intrinsics.txt", "frame-000001.pose.txt"]
        ),
        *scene_parsers("polycam", _polycam(), ["keyframes/cameras/0.json"]),
        *scene_parsers("record3d", _record3d(), ["metadata"]),
        *scene_parsers("shards", _shard(), ["shard.json", "shard.tar"]),
        Parser("video.avi", _video(), _read_video),
    ]


_COLMAP = ("cameras", "images", "points3D")


def _colmap() -> dict[str, bytes]:
    lens = struct.pack("<QIiQQ4d", 1, 1, 1, 12, 8, 20, 20, 6, 4)
    images, points = [struct.pack("<Q", len(POSES))], [struct.pack("<Q", 12)]
    for number, pose in enumerate(POSES):
        turn = Rotation.from_matrix(pose[:3, :3].T)
        numbers = *turn.as_quat()[[3, 0, 1, 2]], *-turn.apply(pose[:3, 3])
        seen = [struct.pack("<ddQ", 5.0, 3.0, point) for point in range(12)]
        row = struct.pack("<I7dI", number, *numbers, 1) + f"{number}.png\0".encode()
        images += [row, struct.pack("<Q", len(seen)), *seen]
    for number in range(12):
        position = 0.1 * number, 0.0, 4.0
        track = struct.pack("<Q6I", 3, 0, number, 1, number, 2, number)
        points.append(struct.pack("<Q3d3Bd", number, *position, 1, 2, 3, 0.5) + track)
    contents = (lens, b"".join(images), b"".join(points))
    model = {f"sparse/0/{name}.bin": data for name, data in zip(_COLMAP, contents, strict=True)}
    return {**model, **photo_files("images/{}.png")}


def _bundler() -> dict[str, bytes]:
    lines = ["# Bundle file v0.3", f"{len(POSES)} 1"]
    for pose in OPENGL_POSES:
        w2c = np.linalg.inv(pose)
        rows = [*w2c[:3, :3].tolist(), w2c[:3, 3].tolist()]
        lines += ["20 0 0", *(" ".join(map(str, row)) for row in rows)]
    lines += ["1.0 2.0 3.0", "255 0 0", "1 0 12 3.5 -7.5"]
    names = "".join(f"C:\\project\\{number}.png 0 20\n" for number in range(len(POSES)))
    files = {_BUNDLE: "\n".join(lines).encode(), "list.txt": names.encode()}
    return {**files, **photo_files("photos/{}.png")}


def _meshroom() -> dict[str, bytes]:
    lens = {"intrinsicId": "7", "width": "12", "height": "8", "type": "pinhole"}
    lens |= {"distortionType": "radialk3", "distortionParams": ["0"] * 3, "pixelRatio": "1"}
    lens |= {"principalPoint": ["0", "0"], "sensorWidth": "36", "focalLength": "60"}
    views, poses = [], []
    for number, pose in enumerate(POSES):
        ids = {"poseId": str(number), "intrinsicId": "7"}
        views.append({**ids, "viewId": str(number), "path": f"/home/else/{number}.png"})
        rotation = [str(value) for value in pose[:3, :3].ravel()]
        transform = {"rotation": rotation, "center": [str(value) for value in pose[:3, 3]]}
        poses.append({"poseId": str(number), "pose": {"transform": transform}})
    content = {"version": ["1", "2", "5"], "views": views, "intrinsics": [lens], "poses": poses}
    return {"cameras.sfm": json_file(**content), **photo_files("images/{}.png")}


def _early_meshroom() -> dict[str, bytes]:
    """Return files of before version 1.2.1, whose numbers are in pixels from the image corner."""
    files = _meshroom()
    content = json.loads(files.pop("cameras.sfm"))
    content["version"] = ["1", "2", "0"]
    content["intrinsics"][0] |= {"pxFocalLength": ["20", "20"], "principalPoint": ["6", "4"]}
    return {"sfm.json": json_file(**content), **files}


def _scannet() -> dict[str, bytes]:
    poses = {f"pose/{number}.txt": text_file(pose) for number, pose in enumerate(POSES)}
    lens = {"intrinsic/intrinsic_color.txt": text_file(LENS)}
    return {**lens, **poses, **photo_files("color/{}.png")}


def _seven_scenes() -> dict[str, bytes]:
    poses = {f"frame-00000{n}.pose.txt": text_file(pose) for n, pose in enumerate(POSES)}
    lens = {"camera-intrinsics.txt": text_file(LENS[:3, :3])}
    return {**lens, **poses, **photo_files("frame-00000{}.color.png")}


def _polycam() -> dict[str, bytes]:
    files = photo_files("keyframes/images/{}.png")
    for number, pose in enumerate(OPENGL_POSES):
        matrix = {f"t_{row}{column}": pose[row, column] for row in range(3) for column in range(4)}
        lens = {"fx": 20.0, "fy": 20.0, "cx": 6.0, "cy": 4.0, "width": 12, "height": 8}
        files[f"keyframes/cameras/{number}.json"] = json_file(**matrix, **lens)
    return files


def _record3d() -> dict[str, bytes]:
    turns = Rotation.from_matrix(OPENGL_POSES[:, :3, :3]).as_quat()
    poses = np.c_[turns, OPENGL_POSES[:, :3, 3]].tolist()
    content = json_file(K=LENS[:3, :3].T.ravel().tolist(), **SIZE, poses=poses)
    return {"metadata": content, **photo_files("rgbd/{}.png")}


@cache
def _shard() -> dict[str, bytes]:
    """Write a scene with depth maps and masks as a shard."""
    matrices = [pose.tolist() for pose in OPENGL_POSES]
    frames = [
        {"file_path": f"{n}.png", "transform_matrix": matrix, "depth_file_path": "depth.pfm"}
        for n, matrix in enumerate(matrices)
    ]
    content = {"fl_x": 20.0, **SIZE, "near": 1, "far": 2, "frames": frames}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path, data in {**photo_files(), "depth.pfm": DEPTH}.items():
            (folder / path).write_bytes(data)
        (folder / "transforms.json").write_text(json.dumps(content))
        write_scene(open_scene("transforms", folder), folder / "shard", 100)
        return {path.name: path.read_bytes() for path in (folder / "shard").iterdir()}


@cache
def _video() -> bytes:
    """Return a video of six frames of 32x24."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/video.avi"
        writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 5, (32, 24))
        for _ in range(6):
            writer.write(rng.integers(0, 255, (24, 32, 3), np.uint8))
        writer.release()
        return Path(path).read_bytes()


def _read_video(path: Path) -> object:
    return collect_photos(path, path.with_name("frames"), 3)
