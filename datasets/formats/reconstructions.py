"""Cameras of other programs for structure from motion: Bundler's and Meshroom's.

Photos are looked for as the files name them, and by their bare names in the folder of the scene
and in ``images`` in it, since both programs write paths of the machine that they ran on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from datasets.formats.checks import finite_array
from datasets.formats.decoding import read_header
from datasets.formats.image_files import ImageFinder, common_spelling, describe_folder
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import warn_once
from datasets.formats.transforms import scene_of_file
from datasets.formats.transforms_file import parse_transforms, pinhole_frame, stated
from datasets.posed_scene import PosedScene
from utils.errors import UserError
from utils.files import read_json

_MAX_LINE, _MAX_PHOTOS, _SQUARE = 1 << 16, 1 << 16, 1e-3
_CAMERA_LINES, _HEADER_LINES = 5, 8
_NUMBERS_OF_NAME = re.compile(r"\s+0\s+[-+.\deE]+$")
"""Bundler's guess of the focal length, after a name."""
_TO_OPENGL = np.array([1.0, -1.0, -1.0])
_RELATIVE_CENTRE, _MILLIMETRES = (1, 2, 1), (1, 2, 2)
"""Versions of Meshroom's file from which on principal points count from the centre of the image,
and focal lengths are in millimetres."""
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
    with OpenGL's axes and the principal point in the middle of the photo. Photos that were not
    placed have ``f`` 0.
    """
    found = (*sorted(folder.glob("bundle*.out")), folder / "bundle" / "bundle.out")
    path = next(place for place in found if place.is_file() or place == found[-1])
    names = _photo_list(folder, path)
    cameras = _bundler_cameras(path, len(names))
    finder, frames = ImageFinder(folder), []
    for name, camera in zip(names, cameras, strict=True):
        (focal, k1, k2), image = camera[0].tolist(), _locate(finder, name)
        if focal > 0 and (file := finder(image)) is not None:
            height, width = read_header(file).stored
            c2w = np.concatenate([camera[1:4].T, -camera[1:4].T @ camera[4:].T], 1)
            frame = pinhole_frame(image, c2w, np.array([focal, focal, width / 2, height / 2]))
            frames.append(frame | {"k1": k1, "k2": k2, "w": width, "h": height})
    _name_left_out(path, len(names) - len(frames), len(names))
    # Photos are looked for from the scene's folder, wherever the cameras lie.
    source = folder / path.name
    return scene_of_file(source, parse_transforms({"frames": frames}, source), options)


def read_meshroom(folder: Path, options: ReadOptions) -> PosedScene:
    """Read ``cameras.sfm`` or ``sfm.json`` of Meshroom (AliceVision), of any version.

    ``rotation`` is camera-to-world with OpenCV's axes, row by row. Until version 1.2.1 principal
    points count from the corner of the image, until 1.2.2 focal lengths are in pixels.
    """
    names = ("cameras.sfm", "sfm.sfm", "sfm.json")
    path = next((file for name in names if (file := folder / name).is_file()), folder / names[0])
    content = read_json(path, "camera file of Meshroom")
    version = tuple(finite_array(content.get("version"), None, f"{path}: version").tolist())
    poses = {pose.get("poseId"): pose.get("pose") for pose in _entries(content, "poses", path)}
    lenses = {lens.get("intrinsicId"): lens for lens in _entries(content, "intrinsics", path)}
    finder, frames, views = ImageFinder(folder), [], _entries(content, "views", path)
    for number, view in enumerate(views):
        pose, lens = poses.get(view.get("poseId")), lenses.get(view.get("intrinsicId"))
        if not isinstance(pose, dict) or lens is None:
            continue
        source = f"{path}, view {number}"
        transform = pose.get("transform") or {}
        rotation = finite_array(transform.get("rotation"), (9,), f"{source}: rotation")
        center = finite_array(transform.get("center"), (3,), f"{source}: center")
        c2w = np.concatenate([rotation.reshape(3, 3) * _TO_OPENGL, center[:, None]], 1)
        image = _locate(finder, str(view.get("path")))
        frames.append(pinhole_frame(image, c2w, _pinhole(lens, version, source)))
        frames[-1] |= _lens_numbers(lens, source)
    _name_left_out(path, len(views) - len(frames), len(views))
    return scene_of_file(path, parse_transforms({"frames": frames}, path), options)


def _photo_list(folder: Path, path: Path) -> list[str]:
    """Return the names in ``list.txt``; after a name there may be numbers about its camera."""
    places = [folder / "list.txt", *folder.glob("*list*.txt"), path.parent / "list.txt"]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UserError(
            f"{path}: names no photos, its list.txt does, and that is missing; "
            f"{describe_folder(folder)}. Write it with one photo a line, in the order of cameras."
        )
    return [_NUMBERS_OF_NAME.sub("", line) for line in _lines(file, _MAX_PHOTOS) if line]


def _bundler_cameras(path: Path, count: int) -> Float64[np.ndarray, "camera 5 3"]:
    most = _CAMERA_LINES * count + _HEADER_LINES
    lines = (line for line in _lines(path, most) if not line.startswith("#"))
    size = next(lines, "").split()
    if not size or not size[0].isdecimal() or int(size[0]) != count:
        raise UserError(
            f"{path}: should hold {count} cameras, one for each photo in list.txt, but its first "
            f"line says {' '.join(size)[:80]!r}. Export both files again, together."
        )
    rows = [line.split() for line in islice(lines, _CAMERA_LINES * count)]
    numbers = finite_array(rows, (_CAMERA_LINES * count, 3), f"{path}: cameras")
    return numbers.reshape(count, _CAMERA_LINES, 3)


def _lines(path: Path, most: int) -> list[str]:
    """Read the first lines of a file that may be huge; the points come after the cameras."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = islice(iter(lambda: file.readline(_MAX_LINE), ""), most)
            return [line.strip() for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the cameras ({error}).") from error


def _locate(finder: ImageFinder, name: str) -> str:
    bare = PurePosixPath(common_spelling(name)).name
    tried = (name, bare, f"images/{bare}", f"photos/{bare}")
    return next((other for other in tried if finder(other) is not None), name)


def _entries(content: Mapping[str, Any], key: str, path: Path) -> Sequence[Mapping[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f"{path}: holds no {key}; give the file of the node StructureFromMotion, or of "
            "ConvertSfMFormat with views, intrinsics and extrinsics."
        )
    return entries


def _pinhole(
    lens: Mapping[str, Any], version: tuple[float, ...], source: str
) -> Float64[np.ndarray, " 4"]:
    size = finite_array([lens.get("width"), lens.get("height")], (2,), f"{source}: width, height")
    center = finite_array(lens.get("principalPoint"), (2,), f"{source}: principalPoint")
    if version >= _RELATIVE_CENTRE:
        center = center + size / 2
    if version >= _MILLIMETRES:
        given = [lens.get(key) for key in ("focalLength", "sensorWidth", "pixelRatio")]
        length, sensor, ratio = finite_array(given, (3,), f"{source}: focalLength, sensorWidth")
        if abs(ratio - 1) > _SQUARE:
            raise UserError(f"{source}: pixelRatio is {ratio:g}; only square pixels are read.")
        return np.array([*[length / sensor * size[0]] * 2, *center])
    focal = finite_array(lens.get("pxFocalLength"), None, f"{source}: pxFocalLength")
    return np.array([*np.broadcast_to(focal, 2), *center])


def _lens_numbers(lens: Mapping[str, Any], source: str) -> dict[str, object]:
    """Return size and distortion of a lens, as ``transforms.json`` has them."""
    kind = str(lens.get("distortionType") or lens.get("type"))
    if kind not in _COEFFICIENTS:
        raise UserError(
            f"{source}: lenses of type {kind!r} are not read; undistort the photos first, with "
            "Meshroom's node ExportImages or PrepareDenseScene."
        )
    values = lens.get("distortionParams") or [0.0] * len(_COEFFICIENTS[kind])
    numbers = finite_array(values, (len(_COEFFICIENTS[kind]),), f"{source}: distortionParams")
    size = stated(w=float(lens["width"]), h=float(lens["height"]))
    return size | dict(zip(_COEFFICIENTS[kind], numbers.tolist(), strict=True))


def _name_left_out(path: Path, left_out: int, count: int) -> None:
    if left_out:
        warn_once(f"{path}: {left_out} of {count} photos are left out: not placed, or not there")
