"""Readers of scenes in all formats, each with sample files of which one is damaged."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from datasets.formats.format_table import FORMATS
from datasets.formats.registry import open_scene
from datasets.formats.transforms_file import read_transforms_file
from datasets.scene_index import read_index

_POSES = np.tile(np.eye(4), (3, 1, 1))
_POSES[:, :3, :3] = Rotation.from_euler("y", [[0.3], [0], [-0.3]]).as_matrix()
_POSES[:, :3, 3] = [[-1.2, 0, 0.2], [0, 0, 0], [1.2, 0, 0.2]]
"""Camera-to-world poses that face a point four units away."""
_OPENGL = _POSES * np.array([1.0, -1, -1, 1])
_LENS = np.array([[20.0, 0, 6, 0], [0, 20, 4, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
_SPLITS = ("val", "test")
_SIZE = {"w": 12, "h": 8}
_CAMERA = "extrinsic\n{}\n\nintrinsic\n20 0 6\n0 20 4\n0 0 1\n\n1 0.1 16 2\n"


@dataclass(frozen=True)
class Parser:
    """A reader of one file, and a valid file for it."""

    name: str
    """Path of the file below a folder."""
    content: bytes
    read: Callable[[Path], object]
    other_files: tuple[tuple[str, bytes], ...] = ()
    """Paths, relative to the file's folder, and contents of undamaged files that it needs."""


def image_file(mode: str, suffix: str, exif: Image.Exif | None = None) -> bytes:
    """Return an encoded image of 12x8 pixels."""
    buffer, name = io.BytesIO(), {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    options = {} if exif is None else {"exif": exif}
    Image.new(mode, (12, 8)).save(buffer, name, **options)
    return buffer.getvalue()


def array_file(values: np.ndarray) -> bytes:
    """Return an array in NumPy's file format."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def scene_parsers() -> list[Parser]:
    """Return the readers of all formats with a camera file."""
    index = {"views": 3, "size": [4, 5], "splits": {"train": [0, 2]}}
    transforms = json.dumps(_transforms()).encode()
    rows = [[*np.c_[pose[:3], [8, 12, 20.0]].ravel(), 1, 2] for pose in _POSES]
    photos = [(f"{number}.png", image_file("RGB", "png")) for number in range(3)]
    splits = [(f"transforms_{name}.json", _json(**_transforms(f"{name}_"))) for name in _SPLITS]
    held_out = [(f"{name}_{photo}", image) for name in _SPLITS for photo, image in photos]
    named = [(f"0_{name}", content) for name, content in photos]
    poses = [(f"pose/0_{n}.txt", _text(pose)) for n, pose in enumerate(_POSES)]
    cameras = [(f"{n:08d}_cam.txt", _mvsnet(pose)) for n, pose in enumerate(_POSES)]
    return [
        Parser("lone/transforms.json", transforms, read_transforms_file),
        Parser("scenes.json", _json(format="colmap", scenes={"a": index}), _read_index),
        _scene("transforms", "transforms.json", transforms, photos),
        _scene(
            *("blender", "transforms_train.json", _json(**_transforms(), camera_angle_x=0.6)),
            [*photos, *splits, *held_out],
        ),
        _scene("llff", "poses_bounds.npy", array_file(np.array(rows)), _under("images", photos)),
        _scene("sdfstudio", "meta_data.json", _sdfstudio(), photos),
        _scene("nsvf", "intrinsics.txt", _text(_LENS), [*_under("rgb", named), *poses]),
        _scene("neus", "cameras_sphere.npz", _projections(), _under("image", photos)),
        _scene(
            *("polycam", "keyframes/cameras/0.json", _polycam(0)),
            [
                *_under("keyframes/images", photos),
                *((f"keyframes/cameras/{n}.json", _polycam(n)) for n in (1, 2)),
            ],
        ),
        _scene("record3d", "metadata", _record3d(), _under("rgbd", photos)),
        _scene(
            *("blendedmvs", "cams/00000000_cam.txt", cameras[0][1]),
            [
                *_under("images", [(f"{n:08d}.png", photo) for n, (_, photo) in enumerate(photos)]),
                *_under("cams", cameras[1:]),
            ],
        ),
    ]


def _scene(name: str, path: str, content: bytes, other_files: list[tuple[str, bytes]]) -> Parser:
    """Return the reader of a format whose file at ``path`` is damaged."""
    up = "../" * path.count("/")

    def read(file: Path) -> object:
        return open_scene(name, (file.parent / up).resolve())

    assert name in FORMATS
    others = tuple((f"{up}{other}", data) for other, data in other_files)
    return Parser(f"{name}/{path}", content, read, others)


def _read_index(path: Path) -> object:
    return read_index("colmap", path.parent)


def _under(folder: str, files: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return [(f"{folder}/{name}", content) for name, content in files]


def _json(**values: object) -> bytes:
    return json.dumps(values).encode()


def _text(matrix: np.ndarray) -> bytes:
    return "\n".join(" ".join(f"{value:g}" for value in row) for row in matrix).encode()


def _mvsnet(pose: np.ndarray) -> bytes:
    return _CAMERA.format(_text(np.linalg.inv(pose)).decode()).encode()


def _transforms(prefix: str = "") -> dict[str, object]:
    frames = [
        {"file_path": f"{prefix}{number}.png", "transform_matrix": pose.tolist()}
        for number, pose in enumerate(_OPENGL)
    ]
    return {"fl_x": 20.0, "fl_y": 20.5, **_SIZE, "near": 1, "far": 2, "frames": frames}


def _sdfstudio() -> bytes:
    frames = [
        {"rgb_path": f"{n}.png", "camtoworld": pose.tolist(), "intrinsics": _LENS.tolist()}
        for n, pose in enumerate(_POSES)
    ]
    box = {"near": 1.0, "far": 2.0, "collider_type": "near_far"}
    return _json(frames=frames, scene_box=box, width=12, height=8)


def _projections() -> bytes:
    buffer = io.BytesIO()
    matrices = {f"world_mat_{n}": _LENS @ np.linalg.inv(pose) for n, pose in enumerate(_POSES)}
    np.savez_compressed(buffer, **matrices)
    return buffer.getvalue()


def _polycam(number: int) -> bytes:
    pose = _OPENGL[number]
    matrix = {f"t_{row}{column}": pose[row, column] for row in range(3) for column in range(4)}
    return _json(**matrix, fx=20.0, fy=20.0, cx=6.0, cy=4.0, width=12, height=8)


def _record3d() -> bytes:
    turns = Rotation.from_matrix(_OPENGL[:, :3, :3]).as_quat()
    poses = np.c_[turns, _OPENGL[:, :3, 3]].tolist()
    return _json(K=_LENS[:3, :3].T.ravel().tolist(), **_SIZE, poses=poses)
