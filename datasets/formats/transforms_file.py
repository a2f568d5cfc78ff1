"""Parsing and validation of ``transforms.json``, the camera file of instant-ngp and nerfstudio.

Numbers stand at the top of the file for all frames, or in a frame for that one: ``fl_x fl_y cx cy
w h``, ``camera_angle_x camera_angle_y`` (radians) in place of focal lengths, ``k1 k2 k3 k4 p1 p2``.
A map of z-depths is ``depth_file_path`` with ``depth_unit_scale_factor`` (default 0.001) for
nerfstudio, and ``depth_path`` with ``integer_depth_scale`` for instant-ngp; the factor leads to the
unit of the camera positions. ``transform_matrix`` is camera-to-world with OpenGL axes: right, up,
backwards. ``train_filenames``, ``val_filenames`` and ``test_filenames`` declare splits.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.formats.checks import rigid_poses
from datasets.formats.images.image_files import natural_key, normalize_path
from datasets.formats.images.lenses import LensModel
from datasets.formats.messages import warn_of_unused_keys
from datasets.formats.splits import SPLITS, Split
from utils.errors import UserError
from utils.files import read_json

OPENGL_AXES = np.array([1.0, -1.0, -1.0, 1.0])
"""Signs of the columns of a camera-to-world matrix, from OpenCV to OpenGL axes and back."""
FISHEYE_MODEL = "OPENCV_FISHEYE"
COEFFICIENTS = ("k1", "k2", "k3", "k4", "p1", "p2")
_MAX_FRAMES = 1 << 16
_PINHOLE_KEYS = ("fl_x", "fl_y", "cx", "cy")
_NUMBER_KEYS = (*_PINHOLE_KEYS, "w", "h", "camera_angle_x", "camera_angle_y", *COEFFICIENTS)
_DEPTH_SCALE, _INTEGER_SCALE = "depth_unit_scale_factor", "integer_depth_scale"
_PERSPECTIVE_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_USED_KEYS = frozenset(
    (
        *(*_NUMBER_KEYS, _DEPTH_SCALE, _INTEGER_SCALE, "near", "far", "camera_model", "is_fisheye"),
        *("frames", "file_path", "mask_path", "dynamic_mask_path", "depth_file_path", "depth_path"),
        *("transform_matrix", "enable_depth_loading"),
        *(f"{split}_filenames" for split in SPLITS),
    )
)
_IRRELEVANT_KEYS = frozenset(
    "aabb_scale scale offset up from_na applied_transform applied_scale orientation_override "
    "auto_scale_poses_override ply_file_path colmap_im_id sharpness rotation image_id".split()
)
"""Keys without effect on cameras or pixels as they are read here."""


@dataclass(frozen=True)
class Frame:
    """A validated frame."""

    source: str
    """File, index and image of the frame, to begin error messages."""
    file: Path
    file_path: str
    """With forward slashes and without ``./``."""
    mask_path: str | None
    """White pixels are valid."""
    dynamic_mask_path: str | None
    """White pixels belong to moving objects and are invalid."""
    depth_path: str | None
    depth_scale: float
    c2w: Float64[Tensor, "4 4"]
    """With OpenCV axes."""
    numbers: Mapping[str, float]
    """The frame's own numbers, else those at the top of the file; without absent ones."""
    model: LensModel


@dataclass(frozen=True)
class TransformsFile:
    """A validated file; its images are not checked."""

    frames: list[Frame]
    """Sorted by the numbers in their names."""
    near_far: tuple[float, float] | None
    lists: Mapping[Split, tuple[str, ...]]
    """Image names of the declared splits."""


def read_transforms_file(path: Path, may_be_empty: bool = False) -> TransformsFile:
    """Read and validate a file; ``may_be_empty`` allows it to have no frames."""
    return parse_transforms(read_json(path, "camera file"), path, may_be_empty)


def parse_transforms(
    content: Mapping[str, object], path: Path, may_be_empty: bool = False
) -> TransformsFile:
    """Validate the content of a file; image names are relative to the folder of ``path``."""
    entries = _check_entries(content.get("frames"), path, may_be_empty)
    sources = [_frame_source(entry, f"{path}, frame {n}") for n, entry in enumerate(entries)]
    poses = _parse_poses([entry.get("transform_matrix") for entry in entries], sources)
    frames = [
        _parse_frame(entry, content, path, source, c2w)
        for entry, source, c2w in zip(entries, sources, poses, strict=True)
    ]
    frames.sort(key=lambda frame: (natural_key(frame.file_path), frame.file_path))
    for first, second in pairwise(frames):
        if first.file_path == second.file_path:
            raise UserError(
                f"{second.source}: {second.file_path[:80]!r} has two frames; remove one."
            )
    near_far = _parse_numbers(content, ("near", "far"), str(path))
    if len(near_far) == 1:
        raise UserError(f"{path}: has {next(iter(near_far))} alone; add the other of near and far.")
    keys = {str(key) for entry in (content, *entries) for key in entry}
    warn_of_unused_keys(keys - _USED_KEYS - _IRRELEVANT_KEYS, path)
    lists: dict[Split, tuple[str, ...]] = {
        split: names for split in SPLITS if (names := _parse_list(content, split, path))
    }
    return TransformsFile(frames, (near_far["near"], near_far["far"]) if near_far else None, lists)


def pinhole_frame(
    file_path: object,
    c2w: Float64[np.ndarray, "*matrix"],
    pinhole: Float64[np.ndarray, " 4"],
    **keys: object,
) -> dict[str, object]:
    """Write a frame as JSON content, from another program's camera with OpenCV axes.

    ``c2w`` has 3 or 4 rows; ``pinhole`` holds both focal lengths and the principal point (x, y).
    ``keys`` are further keys of the frame; None leaves one out.
    """
    frame: dict[str, object] = {
        "file_path": file_path,
        "transform_matrix": (c2w[:3] * OPENGL_AXES).tolist(),
    }
    frame |= zip(_PINHOLE_KEYS, pinhole.tolist(), strict=True)
    return frame | {key: value for key, value in keys.items() if value is not None}


def _check_entries(entries: object, path: Path, may_be_empty: bool) -> list[Any]:
    if not isinstance(entries, list):
        raise UserError(f"{path}: 'frames' must be a list of cameras, one for each image.")
    if not entries and not may_be_empty:
        raise UserError(
            f"{path}: 'frames' is empty: the program that wrote the file matched no camera with an "
            "image. Export again, with images named as its cameras are; or let the cameras be "
            "estimated: python -m apps.estimate_cameras --photos FOLDER."
        )
    if len(entries) > _MAX_FRAMES:
        raise UserError(
            f"{path}: lists {len(entries)} frames, more than the {_MAX_FRAMES} that are read; keep "
            "every second or third of them."
        )
    return entries


def _parse_list(content: Mapping[str, object], split: Split, path: Path) -> tuple[str, ...]:
    key = f"{split}_filenames"
    names = content.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: {key} must list names, found {reprlib.repr(names)}.")
    return tuple(normalize_path(name) for name in names)


def _frame_source(entry: object, source: str) -> str:
    if not isinstance(entry, dict):
        raise UserError(f"{source}: expected an object, found {reprlib.repr(entry)}.")
    file_path = entry.get("file_path")
    if not isinstance(file_path, str) or not file_path.strip():
        raise UserError(f"{source}: file_path must name an image, found {reprlib.repr(file_path)}.")
    return f"{source} ({file_path[:80]!r})"


def _parse_frame(
    entry: Mapping[str, Any],
    shared: Mapping[str, object],
    file: Path,
    source: str,
    c2w: Float64[Tensor, "4 4"],
) -> Frame:
    merged = {**shared, **entry}
    depth_key, scale_key = "depth_file_path", _DEPTH_SCALE
    if "depth_path" in entry and _INTEGER_SCALE in merged:
        depth_key, scale_key = "depth_path", _INTEGER_SCALE
    mask, dynamic_mask, depth = (
        _parse_path(entry, key, source) for key in ("mask_path", "dynamic_mask_path", depth_key)
    )
    numbers = _parse_numbers(merged, (*_NUMBER_KEYS, scale_key), source)
    depth_scale = numbers.pop(scale_key, 1e-3)
    if depth_scale <= 0:
        raise UserError(f"{source}: {scale_key} must be positive, found {depth_scale:g}.")
    return Frame(
        source=source,
        file=file,
        file_path=normalize_path(entry["file_path"]),
        mask_path=mask,
        dynamic_mask_path=dynamic_mask,
        depth_path=depth,
        depth_scale=depth_scale,
        c2w=c2w,
        numbers=numbers,
        model=_parse_model(merged, source),
    )


def _parse_path(entry: Mapping[str, object], key: str, source: str) -> str | None:
    value = entry.get(key) or None
    if value is not None and not isinstance(value, str):
        raise UserError(f"{source}: {key} must name a file, found {reprlib.repr(value)}.")
    return None if value is None else normalize_path(value)


def _parse_poses(
    matrices: Sequence[object], sources: Sequence[str]
) -> Float64[Tensor, "frame 4 4"]:
    rows = [_parse_matrix(matrix, source) for matrix, source in zip(matrices, sources, strict=True)]
    poses = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3, 4)
    return rigid_poses(poses * torch.from_numpy(OPENGL_AXES), sources)


def _parse_matrix(matrix: object, source: str) -> list[list[float]]:
    expected = f"{source}: transform_matrix must be 4 rows of 4 numbers"
    if not isinstance(matrix, list) or len(matrix) not in (3, 4):
        raise UserError(f"{expected}, found {reprlib.repr(matrix)}.")
    for row in matrix:
        if not isinstance(row, list) or len(row) != 4 or not all(map(_is_number, row)):
            raise UserError(f"{expected}, found {reprlib.repr(row)}.")
    if [float(number) for number in sum(matrix[3:], [])] not in ([], [0.0, 0.0, 0.0, 1.0]):
        raise UserError(f"{expected}, the last 0 0 0 1, found {reprlib.repr(matrix[3])}.")
    return [[float(number) for number in row] for row in matrix[:3]]


def _parse_numbers(
    values: Mapping[str, object], keys: tuple[str, ...], source: str
) -> dict[str, float]:
    for key in keys:
        if key in values and not _is_number(values[key]):
            raise UserError(
                f"{source}: {key} must be a finite number, found {reprlib.repr(values[key])}."
            )
    return {key: float(str(values[key])) for key in keys if key in values}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _parse_model(values: Mapping[str, object], source: str) -> LensModel:
    model = values.get("camera_model", "OPENCV")
    if values.get("is_fisheye") is True or model == FISHEYE_MODEL:
        return "fisheye"
    if model not in _PERSPECTIVE_MODELS:
        raise UserError(
            f"{source}: camera_model {reprlib.repr(model)} is not supported; supported are "
            f"{', '.join(_PERSPECTIVE_MODELS)} and {FISHEYE_MODEL}. For panoramas, run "
            "ns-process-data images --camera-type equirectangular --data IMAGES --output-dir NEW "
            "(pip install nerfstudio); undistort other photos first."
        )
    return "perspective"
