"""Readers of the structure-from-motion programs Bundler and Meshroom.

Both write image paths of the machine that they ran on, so photos are looked for under these paths,
then by bare name in the folder of the scene and in ``images`` and ``photos`` in it.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from datasets.formats.checks import finite_array
from datasets.formats.images.decoding import read_header
from datasets.formats.images.image_files import ImageFinder, describe_folder, normalize_path
from datasets.formats.messages import warn_once
from datasets.formats.options import ReadOptions
from datasets.formats.transforms import scene_of_frames
from datasets.formats.transforms_file import OPENGL_AXES, pinhole_frame
from datasets.posed_scene import PosedScene
from utils.errors import UserError
from utils.files import read_json

_MAX_LINE, _MAX_PHOTOS = 1 << 16, 1 << 16
_CAMERA_LINES, _HEADER_LINES = 5, 8
_FOCAL_GUESS = re.compile(r"\s+0\s+[-+.\deE]+$")
"""Follows an image name in Bundler's ``list.txt``."""
_RELATIVE_CENTER_VERSION, _MILLIMETRE_VERSION = (1, 2, 1), (1, 2, 2)
"""Versions of Meshroom's file since which principal points are offsets from the image centre, and
focal lengths are in millimetres."""
_MAX_PIXEL_RATIO_ERROR = 1e-3
_COEFFICIENTS = {
    "pinhole": (),
    "none": (),
    "radial1": ("k1",),
    "radialk1": ("k1",),
    "radial3": ("k1", "k2", "k3"),
    "radialk3": ("k1", "k2", "k3"),
    "brown": ("k1", "k2", "k3", "p1", "p2"),
}


def read_bundler(folder: Path, options: ReadOptions) -> PosedScene:
    """Read ``bundle.out`` of Bundler (Snavely et al., 2006), whose ``list.txt`` names the photos.

    Each camera has ``f k1 k2``, the three rows of its world-to-camera rotation and a translation,
    with OpenGL axes and the principal point at the image centre. Photos that were not registered
    have ``f`` 0.
    """
    nested = folder / "bundle" / "bundle.out"
    path = next((file for file in sorted(folder.glob("bundle*.out")) if file.is_file()), nested)
    names = _read_photo_list(folder, path)
    cameras = _read_bundler_cameras(path, len(names))
    finder, frames = ImageFinder(folder), []
    for name, camera in zip(names, cameras, strict=True):
        (focal, k1, k2), image = camera[0].tolist(), _locate(finder, name)
        if focal > 0 and (file := finder(image)) is not None:
            height, width = read_header(file).stored
            c2w = np.concatenate([camera[1:4].T, -camera[1:4].T @ camera[4:].T], 1) * OPENGL_AXES
            pinhole = np.array([focal, focal, width / 2, height / 2])
            frames.append(pinhole_frame(image, c2w, pinhole, k1=k1, k2=k2, w=width, h=height))
    _warn_of_left_out(path, len(names) - len(frames), len(names))
    # Image paths are relative to the folder of the scene, even if the cameras lie in bundle/.
    return scene_of_frames(folder / path.name, frames, options)


def read_meshroom(folder: Path, options: ReadOptions) -> PosedScene:
    """Read ``cameras.sfm`` or ``sfm.json`` of Meshroom (AliceVision), of any version.

    ``rotation`` is camera-to-world with OpenCV axes, row by row. Before version 1.2.1 principal
    points count from the image corner, before 1.2.2 focal lengths are in pixels.
    """
    names = ("cameras.sfm", "sfm.sfm", "sfm.json")
    path = next((file for name in names if (file := folder / name).is_file()), folder / names[0])
    content = read_json(path, "camera file of Meshroom")
    version = tuple(finite_array(content.get("version"), None, f"{path}: version").ravel().tolist())
    poses = _by_id(content, "poses", "poseId", path)
    lenses = _by_id(content, "intrinsics", "intrinsicId", path)
    finder, frames, views = ImageFinder(folder), [], _entries(content, "views", path)
    for number, view in enumerate(views):
        pose, lens = poses.get(str(view.get("poseId"))), lenses.get(str(view.get("intrinsicId")))
        if pose is None or lens is None:
            continue
        source = f"{path}, view {number}"
        transform = _object(_object(pose.get("pose"), source).get("transform"), source)
        rotation = finite_array(transform.get("rotation"), (9,), f"{source}: rotation")
        center = finite_array(transform.get("center"), (3,), f"{source}: center")
        c2w = np.concatenate([rotation.reshape(3, 3), center[:, None]], 1)
        size = [lens.get("width"), lens.get("height")]
        width, height = finite_array(size, (2,), f"{source}: width, height").tolist()
        frame = pinhole_frame(
            _locate(finder, str(view.get("path"))),
            c2w,
            _pinhole(lens, (width, height), version, source),
            w=width,
            h=height,
            **_distortion(lens, source),
        )
        frames.append(frame)
    _warn_of_left_out(path, len(views) - len(frames), len(views))
    return scene_of_frames(path, frames, options)


def _read_photo_list(folder: Path, path: Path) -> list[str]:
    files = [folder / "list.txt", *folder.glob("*list*.txt"), path.parent / "list.txt"]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UserError(
            f"{path}: names no photos, its list.txt does, and that is missing; "
            f"{describe_folder(folder)}. Write it with one photo a line, in the order of cameras."
        )
    return [_FOCAL_GUESS.sub("", line) for line in _read_lines(file, _MAX_PHOTOS) if line]


def _read_bundler_cameras(path: Path, count: int) -> Float64[np.ndarray, "camera 5 3"]:
    max_lines = _CAMERA_LINES * count + _HEADER_LINES
    lines = (line for line in _read_lines(path, max_lines) if not line.startswith("#"))
    header = next(lines, "").split()
    if header[:1] != [str(count)]:
        raise UserError(
            f"{path}: should hold {count} cameras, one for each photo in list.txt, but its first "
            f"line says {' '.join(header)[:80]!r}. Export both files again, together."
        )
    rows = [line.split() for line in islice(lines, _CAMERA_LINES * count)]
    numbers = finite_array(rows, (_CAMERA_LINES * count, 3), f"{path}: cameras")
    return numbers.reshape(count, _CAMERA_LINES, 3)


def _read_lines(path: Path, max_lines: int) -> list[str]:
    """Read the first lines of a file; the points after the cameras may be huge."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = islice(iter(lambda: file.readline(_MAX_LINE), ""), max_lines)
            return [line.strip() for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the cameras ({error}).") from error


def _locate(finder: ImageFinder, name: str) -> str:
    bare = PurePosixPath(normalize_path(name)).name
    candidates = (name, bare, f"images/{bare}", f"photos/{bare}")
    return next((path for path in candidates if finder(path) is not None), name)


def _entries(content: Mapping[str, Any], key: str, path: Path) -> Sequence[Mapping[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f"{path}: holds no {key}; give the file of the node StructureFromMotion, or of "
            "ConvertSfMFormat with views, intrinsics and extrinsics."
        )
    return entries


def _by_id(content: Mapping[str, Any], key: str, name: str, path: Path) -> dict[str, Any]:
    """Return entries by their ids; an id that two entries have would mix up cameras."""
    by_id: dict[str, Any] = {}
    for entry in _entries(content, key, path):
        number = str(entry.get(name))
        if number in by_id:
            raise UserError(f"{path}: two of its {key} have the {name} {number[:40]}; remove one.")
        by_id[number] = entry
    return by_id


def _object(value: object, source: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{source}: expected a pose with a transform, found {reprlib.repr(value)}.")
    return value


def _pinhole(
    lens: Mapping[str, Any], size: tuple[float, float], version: tuple[float, ...], source: str
) -> Float64[np.ndarray, " 4"]:
    center = finite_array(lens.get("principalPoint"), (2,), f"{source}: principalPoint")
    if version >= _RELATIVE_CENTER_VERSION:
        center = center + np.array(size) / 2
    if version < _MILLIMETRE_VERSION:
        focal = finite_array(lens.get("pxFocalLength"), None, f"{source}: pxFocalLength")
        if focal.shape not in ((), (2,)):
            raise UserError(f"{source}: pxFocalLength must be a number or two, not {focal.size}.")
        return np.array([*np.broadcast_to(focal, 2), *center])
    numbers = [lens.get(key) for key in ("focalLength", "sensorWidth", "pixelRatio")]
    length, sensor, ratio = finite_array(numbers, (3,), f"{source}: focalLength, sensorWidth")
    if abs(ratio - 1) > _MAX_PIXEL_RATIO_ERROR:
        raise UserError(f"{source}: pixelRatio is {ratio:g}; only square pixels are read.")
    return np.array([*[length / sensor * size[0]] * 2, *center])


def _distortion(lens: Mapping[str, Any], source: str) -> dict[str, float]:
    kind = str(lens.get("distortionType") or lens.get("type"))
    if kind not in _COEFFICIENTS:
        raise UserError(
            f"{source}: lenses of type {kind[:80]!r} are not read; undistort the photos first, "
            "with Meshroom's node ExportImages or PrepareDenseScene."
        )
    names = _COEFFICIENTS[kind]
    values = lens.get("distortionParams") or [0.0] * len(names)
    numbers = finite_array(values, (len(names),), f"{source}: distortionParams")
    return dict(zip(names, numbers.tolist(), strict=True))


def _warn_of_left_out(path: Path, left_out: int, count: int) -> None:
    if left_out:
        warn_once(f"{path}: {left_out} of {count} photos are left out: not registered, or missing")
