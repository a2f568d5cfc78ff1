"""Parsers with a valid sample file each, and the cameras and images of sample scenes."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from datasets.formats.format_table import FORMATS
from datasets.formats.registry import open_scene
from datasets.posed_scene import PosedScene
from utils.cameras import Cameras

POSES = np.tile(np.eye(4), (3, 1, 1))
POSES[:, :3, :3] = Rotation.from_euler("y", [[0.3], [0], [-0.3]]).as_matrix()
POSES[:, :3, 3] = [[-1.2, 0, 0.2], [0, 0, 0], [1.2, 0, 0.2]]
"""Camera-to-world poses that face a point four units away."""
OPENGL_POSES = POSES * np.array([1.0, -1, -1, 1])
LENS = np.array([[20.0, 0, 6, 0], [0, 20, 4, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
SIZE = {"w": 12, "h": 8}


@dataclass(frozen=True)
class Parser:
    """A reader of one file, and a valid file for it."""

    name: str
    """Path of the file below a folder."""
    content: bytes
    read: Callable[[Path], object]
    other_files: tuple[tuple[str, bytes], ...] = ()
    """Paths, relative to the file's folder, and contents of undamaged files that it needs."""


def scene_parsers(
    name: str, files: Mapping[str, bytes], damaged: Sequence[str], scan: str = ""
) -> list[Parser]:
    """Return the readers of a format of which one file each is damaged.

    Paths are relative to the folder of the scene, or to that of the data set of its ``scan``.
    """
    assert name in FORMATS
    parsers = []
    for path in damaged:
        up = "../" * path.count("/")
        others = tuple((f"{up}{other}", files[other]) for other in files if other != path)
        read = partial(_read_scene, name, f"{up}{scan}")
        parsers.append(Parser(f"{name}/{path}", files[path], read, others))
    return parsers


def _read_scene(name: str, folder: str, file: Path) -> PosedScene:
    scene = open_scene(name, Path(os.path.normpath(file.parent / folder)))
    check_cameras(scene.cameras)
    near, far = scene.near_far.tolist()
    assert 0 < near < far < math.inf, scene.near_far
    scene.load_views(scene.view_ids[:1])
    return scene


def check_cameras(cameras: Cameras) -> None:
    """Raise ``AssertionError`` for impossible cameras: a wrong result is worse than an error."""
    rotations, lenses = cameras.c2w[..., :3, :3].double(), cameras.intrinsics
    assert cameras.c2w.isfinite().all() and lenses.isfinite().all(), cameras
    errors = rotations @ rotations.mT - torch.eye(3, dtype=torch.float64)
    assert errors.abs().amax() < 1e-2 and (torch.linalg.det(rotations) > 0).all(), cameras
    assert (lenses.diagonal(dim1=-2, dim2=-1) > 0).all(), cameras


def image_file(mode: str, suffix: str, exif: Image.Exif | None = None) -> bytes:
    """Return an encoded image of 12x8 pixels."""
    buffer, name = io.BytesIO(), {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    options = {} if exif is None else {"exif": exif}
    Image.new(mode, (12, 8)).save(buffer, name, **options)
    return buffer.getvalue()


def photo_files(pattern: str = "{}.png") -> dict[str, bytes]:
    """Return a photo for each pose, named by its number."""
    return {pattern.format(number): image_file("RGB", "png") for number in range(len(POSES))}


def array_file(values: np.ndarray) -> bytes:
    """Return an array in NumPy's file format."""
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def json_file(**values: object) -> bytes:
    """Return a JSON object."""
    return json.dumps(values).encode()


def text_file(matrix: np.ndarray) -> bytes:
    """Return a matrix as rows of numbers."""
    return "\n".join(" ".join(f"{value:g}" for value in row) for row in matrix).encode()
