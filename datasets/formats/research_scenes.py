"""Readers of layouts published with papers: SDFStudio, NSVF, IDR and NeuS, Nerfies.

All have OpenCV axes.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float64

from datasets.formats.checks import finite_array
from datasets.formats.images.decoding import read_image_size
from datasets.formats.images.image_files import choose_image_folder, list_images
from datasets.formats.messages import warn_of_unused_keys, warn_once
from datasets.formats.options import ReadOptions
from datasets.formats.splits import SPLITS
from datasets.formats.transforms import scene_of_frames
from datasets.formats.transforms_file import pinhole_frame
from datasets.posed_scene import PosedScene
from utils.errors import UserError, first_line
from utils.files import check_size, read_arrays, read_json

_MAX_BYTES, _MAX_NAME = 1 << 25, 200
_MATRIX_NAME = re.compile(r"world_mat_\d{1,9}")
_SDFSTUDIO_KEYS = {"rgb_path", "foreground_mask", "camtoworld", "intrinsics"}


def read_sdfstudio(folder: Path, options: ReadOptions) -> PosedScene:
    """Read ``meta_data.json`` of SDFStudio (Yu et al., 2022).

    Near and far of its ``scene_box`` are used only if its collider is ``near_far``; otherwise they
    are placeholders. Depth and normal maps are not used.
    """
    path = folder / "meta_data.json"
    content = read_json(path, "camera file of SDFStudio")
    frames, unused, entries = [], set(), content.get("frames")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path}: 'frames' must be a list of cameras, one for each image.")
    for number, entry in enumerate(entries):
        source = f"{path}, frame {number}"
        c2w = finite_array(entry.get("camtoworld"), (4, 4), f"{source}: camtoworld")
        matrix = finite_array(entry.get("intrinsics"), None, f"{source}: intrinsics")
        pinhole, mask = _pinhole(matrix, source), entry.get("foreground_mask")
        frames.append(pinhole_frame(entry.get("rgb_path"), c2w, pinhole, mask_path=mask))
        unused |= entry.keys() - _SDFSTUDIO_KEYS
    warn_of_unused_keys(unused, path)
    keys, box = {"w": content.get("width"), "h": content.get("height")}, content.get("scene_box")
    if isinstance(box, dict) and box.get("collider_type") == "near_far" and box.get("near"):
        keys |= {"near": box["near"], "far": box.get("far")}
    return scene_of_frames(path, frames, options, **keys)


def read_nsvf(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene of NSVF (Liu et al., NeurIPS 2020): ``intrinsics.txt``, ``pose``, ``rgb``.

    Images whose names begin with 0, 1 and 2 are for training, validation and test.
    """
    path = folder / "intrinsics.txt"
    intrinsics = read_pinhole(path)
    frames, lists = [], {f"{split}_filenames": [] for split in SPLITS}
    for image in list_images(folder / "rgb"):
        pose = folder / "pose" / f"{image.stem}.txt"
        c2w = finite_array(read_words(pose), (16,), pose).reshape(4, 4)
        frames.append(pinhole_frame(f"rgb/{image.name}", c2w, intrinsics))
        if image.name[:2] in ("0_", "1_", "2_"):
            lists[f"{SPLITS[int(image.name[0])]}_filenames"].append(f"rgb/{image.name}")
    return scene_of_frames(path, frames, options, **lists)


def read_neus(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene of IDR (Yariv et al., NeurIPS 2020) or NeuS (Wang et al., NeurIPS 2021).

    ``cameras_sphere.npz`` or ``cameras.npz`` holds projection matrices ``world_mat_0``, ..., one
    for each photo in ``image`` by name. Black pixels of ``mask`` are invalid.
    """
    names = ("cameras_sphere.npz", "cameras.npz", "cameras_large.npz")
    path = next((file for name in names if (file := folder / name).is_file()), folder / names[0])
    images, mask_folder, frames = sorted(list_images(folder / "image")), folder / "mask", []
    masks = sorted(list_images(mask_folder)) if mask_folder.is_dir() else []
    projections = _read_projections(path, len(images))
    for number, (image, projection) in enumerate(zip(images, projections, strict=True)):
        # The sign of a projection matrix is arbitrary; this one has points in front.
        sign = np.sign(np.linalg.det(projection[:3, :3]))
        matrix, w2c, center = cv2.decomposeProjectionMatrix(sign * projection[:3])[:3]
        c2w = np.concatenate([w2c.T, center[:3] / center[3]], 1)
        pinhole = _pinhole(matrix / matrix[2, 2], f"{path}, world_mat_{number}")
        mask = f"mask/{masks[number].name}" if len(masks) == len(images) else None
        frames.append(pinhole_frame(f"image/{image.name}", c2w, pinhole, mask_path=mask))
    return scene_of_frames(path, frames, options)


def read_nerfies(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a capture of Nerfies or HyperNeRF (Park et al., 2021): ``dataset.json`` names images.

    ``camera/ID.json`` has the world-to-camera ``orientation``, the ``position`` and a lens for
    images of ``image_size`` in ``rgb/1x/ID.png``; ``rgb/2x`` and so on hold downscaled ones.
    Near and far in ``scene.json`` are in units of 1 / ``scale``.
    """
    path, scene = folder / "dataset.json", folder / "scene.json"
    content = read_json(path, "list of images of Nerfies")
    ids, train, val = (_read_ids(content, key, path) for key in ("ids", "train_ids", "val_ids"))
    names = list(dict.fromkeys([*ids, *train, *val]))
    sizes = {
        images: read_image_size(files[0])
        for images in sorted((folder / "rgb").glob("*x"))
        if (files := list_images(images))
    }
    if not sizes:
        raise UserError(f"{folder}: has no images in rgb/1x, rgb/2x, ...; restore them.")
    images, options = choose_image_folder(sizes, options)
    frames = [_nerfies_frame(folder / "camera" / f"{name}.json", images) for name in names]
    keys: dict[str, object] = {}
    if val and set(train) - set(val):
        lists = {"train_filenames": train, "val_filenames": val}
        keys |= {key: [f"rgb/{images.name}/{name}" for name in ids] for key, ids in lists.items()}
    if scene.is_file():
        box = read_json(scene, "description of the scene")
        numbers = [box.get(key) for key in ("near", "far", "scale")]
        near, far, scale = finite_array(numbers, (3,), f"{scene}: near, far, scale").tolist()
        keys |= {"near": near / scale, "far": far / scale} if near > 0 and scale > 0 else {}
    if (folder / "metadata.json").is_file():
        warn_once(f"{folder}: time stamps are not used; moving objects will be blurred")
    return scene_of_frames(path, frames, options, **keys)


def _read_ids(content: Mapping[str, Any], key: str, path: Path) -> list[str]:
    ids = content.get(key) or []
    if not isinstance(ids, list) or not all(isinstance(name, str | int) for name in ids):
        raise UserError(f"{path}: {key} must list images, found {reprlib.repr(ids)}.")
    names = [str(name) for name in ids]
    for name in names:
        if len(name) > _MAX_NAME or not name or Path(name).name != name:
            raise UserError(f"{path}: {key}: {name[:80]!r} is not the name of an image.")
    return names


def _nerfies_frame(path: Path, images: Path) -> dict[str, object]:
    camera = read_json(path, "camera of Nerfies")
    tangential = camera.get("tangential_distortion", camera.get("tangential", [0, 0]))
    w2c = finite_array(camera.get("orientation"), (3, 3), f"{path}: orientation")
    shapes = {"position": 3, "principal_point": 2, "radial_distortion": 3, "image_size": 2}
    position, center, (k1, k2, k3), (w, h) = (
        finite_array(camera.get(key), (count,), f"{path}: {key}").tolist()
        for key, count in shapes.items()
    )
    numbers = [camera.get("focal_length"), camera.get("pixel_aspect_ratio", 1.0)]
    focal, aspect = finite_array(numbers, (2,), f"{path}: focal_length, pixel_aspect_ratio")
    p1, p2 = finite_array(tangential, (2,), f"{path}: tangential_distortion").tolist()
    c2w = np.column_stack([w2c.T, position])
    pinhole = np.array([focal, focal * aspect, *center])
    lens = {"k1": k1, "k2": k2, "k3": k3, "p1": p1, "p2": p2, "w": w, "h": h}
    return pinhole_frame(f"rgb/{images.name}/{path.stem}", c2w, pinhole, **lens)


def _read_projections(path: Path, count: int) -> Float64[np.ndarray, "view 4 4"]:
    try:
        arrays = read_arrays(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read the cameras ({first_line(error)}).") from error
    matrices = {name: array for name, array in arrays.items() if _MATRIX_NAME.fullmatch(name)}
    if len(matrices) != count:
        raise UserError(
            f"{path}: holds {len(matrices)} cameras world_mat_0, ..., but there are {count} photos "
            f"in {path.parent / 'image'}; remove or restore photos until there is one for each "
            "camera."
        )
    names = sorted(matrices, key=lambda name: int(name.rpartition("_")[2]))
    return np.stack([finite_array(matrices[name], (4, 4), f"{path}: {name}") for name in names])


def read_pinhole(path: Path) -> Float64[np.ndarray, " 4"]:
    """Read focal lengths and principal point from a matrix, or from ``f cx cy`` of NSVF."""
    words = read_words(path)
    if len(words) in (9, 16):
        side = 3 if len(words) == 9 else 4
        return _pinhole(finite_array(words, None, path).reshape(side, side), str(path))
    focal, column, row = finite_array(words[:3], (3,), path)
    return np.array([focal, focal, column, row])


def read_words(path: Path) -> list[str]:
    """Read the words of a small text file of camera parameters."""
    try:
        check_size(path, _MAX_BYTES, "camera")
        return path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the camera ({error}).") from error


def _pinhole(matrix: Float64[np.ndarray, "_ _"], source: str) -> Float64[np.ndarray, " 4"]:
    if matrix.ndim != 2 or min(matrix.shape) < 3:
        raise UserError(f"{source}: intrinsics must be 3 rows of 3 numbers, or 4 of 4.")
    return matrix[[0, 1, 0, 1], [0, 1, 2, 2]]
