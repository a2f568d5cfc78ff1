"""Layouts of data that came with papers: SDFStudio's, NSVF's, those of IDR and NeuS, and Nerfies'.

All have OpenCV's axes.
"""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float64

from datasets.formats.checks import finite_array
from datasets.formats.decoding import read_image_size
from datasets.formats.image_files import choose_image_folder, list_images
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import warn_of_unused_keys, warn_once
from datasets.formats.scene_lists import SPLITS
from datasets.formats.transforms import scene_of_file
from datasets.formats.transforms_file import parse_transforms, pinhole_frame, stated
from datasets.posed_scene import PosedScene
from utils.errors import UserError, first_line
from utils.files import check_size, read_arrays, read_json

_MAX_BYTES = 1 << 25
_MATRIX = re.compile(r"world_mat_\d{1,9}")
_USED = {"rgb_path", "foreground_mask", "camtoworld", "intrinsics"}
TO_OPENGL = np.array([1.0, -1.0, -1.0, 1.0])


def read_sdfstudio(folder: Path, options: ReadOptions) -> PosedScene:
    """Read ``meta_data.json`` of SDFStudio (Yu et al., 2022).

    Of its ``scene_box`` near and far count if they bound the rays there (``near_far``), since
    other scenes have placeholders. Cues of depth and normals are named and not used.
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
        frame = pinhole_frame(entry.get("rgb_path"), c2w * TO_OPENGL, _pinhole(matrix, source))
        frames.append(frame | {"mask_path": entry.get("foreground_mask")})
        unused |= entry.keys() - _USED
    warn_of_unused_keys(unused, path)
    whole = {"frames": frames, **stated(w=content.get("width"), h=content.get("height"))}
    box = content.get("scene_box")
    if isinstance(box, dict) and box.get("collider_type") == "near_far" and box.get("near"):
        whole |= stated(near=box["near"], far=box.get("far"))
    return scene_of_file(path, parse_transforms(whole, path), options)


def read_nsvf(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene of NSVF (Liu et al., NeurIPS 2020): ``intrinsics.txt``, ``pose``, ``rgb``.

    Images whose names begin with 0, 1 and 2 are for training, validation and test.
    """
    path = folder / "intrinsics.txt"
    intrinsics = read_pinhole(path)
    frames, lists = [], {f"{split}_filenames": [] for split in SPLITS}
    for image in list_images(folder / "rgb"):
        pose = folder / "pose" / f"{image.stem}.txt"
        c2w = finite_array(read_numbers(pose), (16,), pose).reshape(4, 4)
        frames.append(pinhole_frame(f"rgb/{image.name}", c2w * TO_OPENGL, intrinsics))
        if image.name[:2] in ("0_", "1_", "2_"):
            lists[f"{SPLITS[int(image.name[0])]}_filenames"].append(f"rgb/{image.name}")
    return scene_of_file(path, parse_transforms({"frames": frames, **lists}, path), options)


def read_neus(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene of IDR (Yariv et al., NeurIPS 2020) or NeuS (Wang et al., NeurIPS 2021).

    ``cameras_sphere.npz`` or ``cameras.npz`` holds projections ``world_mat_0``, ..., one for each
    of the photos in ``image`` by name; where ``mask`` is black, nothing counts.
    """
    names = ("cameras_sphere.npz", "cameras.npz", "cameras_large.npz")
    path = next((file for name in names if (file := folder / name).is_file()), folder / names[0])
    images, masks, frames = sorted(list_images(folder / "image")), folder / "mask", []
    black = sorted(list_images(masks)) if masks.is_dir() else []
    projections = _read_projections(path, len(images))
    for number, (image, projection) in enumerate(zip(images, projections, strict=True)):
        # A projection means the same with either sign, of which one has points in front.
        sign = np.sign(np.linalg.det(projection[:3, :3]))
        matrix, w2c, center = cv2.decomposeProjectionMatrix(sign * projection[:3])[:3]
        c2w = np.concatenate([w2c.T, center[:3] / center[3]], 1)
        own = _pinhole(matrix / matrix[2, 2], f"{path}, world_mat_{number}")
        frame = pinhole_frame(f"image/{image.name}", c2w * TO_OPENGL, own)
        if len(black) == len(images):
            frame |= {"mask_path": f"mask/{black[number].name}"}
        frames.append(frame)
    return scene_of_file(path, parse_transforms({"frames": frames}, path), options)


def read_nerfies(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a capture of Nerfies or HyperNeRF (Park et al., 2021): ``dataset.json`` names images.

    ``camera/ID.json`` has the world-to-camera ``orientation``, the ``position`` and a lens for
    images of ``image_size``, which lie in ``rgb/1x/ID.png``, smaller ones in ``rgb/2x`` and so on.
    Near and far in ``scene.json`` are in units of 1 / ``scale``.
    """
    path, scene = folder / "dataset.json", folder / "scene.json"
    content = read_json(path, "list of images of Nerfies")
    train, held = (content.get(key) or [] for key in ("train_ids", "val_ids"))
    names = list(dict.fromkeys(map(str, [*(content.get("ids") or []), *train, *held])))
    sizes = {
        place: read_image_size(images[0])
        for place in sorted((folder / "rgb").glob("*x"))
        if (images := list_images(place))
    }
    if not sizes:
        raise UserError(f"{folder}: has no images in rgb/1x, rgb/2x, ...; restore them.")
    images, options = choose_image_folder(sizes, options)
    frames = [_nerfies_frame(folder / "camera" / f"{name}.json", images) for name in names]
    whole: dict[str, object] = {"frames": frames}
    if held and set(train) - set(held):
        lists = {"train_filenames": train, "val_filenames": held}
        whole |= {key: [_nerfies_image(images, one) for one in ids] for key, ids in lists.items()}
    if scene.is_file():
        box = read_json(scene, "description of the scene")
        given = [box.get(key) for key in ("near", "far", "scale")]
        near, far, scale = finite_array(given, (3,), f"{scene}: near, far, scale").tolist()
        whole |= {"near": near / scale, "far": far / scale} if near > 0 and scale > 0 else {}
    if (folder / "metadata.json").is_file():
        warn_once(f"{folder}: what moves in this capture is blurred: times are not used")
    return scene_of_file(path, parse_transforms(whole, path), options)


def _nerfies_frame(path: Path, images: Path) -> dict[str, object]:
    camera = read_json(path, "camera of Nerfies")
    tangential = camera.get("tangential_distortion", camera.get("tangential", [0, 0]))
    w2c = finite_array(camera.get("orientation"), (3, 3), f"{path}: orientation")
    shapes = {"position": 3, "principal_point": 2, "radial_distortion": 3, "image_size": 2}
    position, center, radial, size = (
        finite_array(camera.get(key), (count,), f"{path}: {key}") for key, count in shapes.items()
    )
    given = [camera.get("focal_length"), camera.get("pixel_aspect_ratio", 1.0)]
    focal, aspect = finite_array(given, (2,), f"{path}: focal_length, pixel_aspect_ratio")
    c2w = np.concatenate([w2c.T, position[:, None]], 1) * TO_OPENGL
    pinhole = np.array([focal, focal * aspect, *center])
    p1, p2 = finite_array(tangential, (2,), f"{path}: tangential_distortion").tolist()
    lens = dict(zip(("k1", "k2", "k3"), radial.tolist(), strict=True)) | {"p1": p1, "p2": p2}
    lens |= dict(zip(("w", "h"), size.tolist(), strict=True))
    return pinhole_frame(_nerfies_image(images, path.stem), c2w, pinhole) | lens


def _nerfies_image(images: Path, name: object) -> str:
    return f"rgb/{images.name}/{name}"


def _read_projections(path: Path, count: int) -> Float64[np.ndarray, "view 4 4"]:
    try:
        arrays = read_arrays(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot read the cameras ({first_line(error)}).") from error
    found = {name: array for name, array in arrays.items() if _MATRIX.fullmatch(name)}
    if len(found) != count:
        raise UserError(
            f"{path}: holds {len(found)} cameras world_mat_0, ..., but there are {count} photos in "
            f"{path.parent / 'image'}; remove or restore photos until there is one for each camera."
        )
    names = sorted(found, key=lambda name: int(name.rpartition("_")[2]))
    return np.stack([finite_array(found[name], (4, 4), f"{path}: {name}") for name in names])


def read_pinhole(path: Path) -> Float64[np.ndarray, " 4"]:
    """Return focal lengths and principal point; a file holds a matrix, or ``f cx cy`` for NSVF."""
    numbers = read_numbers(path)
    if len(numbers) in (9, 16):
        side = 3 if len(numbers) == 9 else 4
        return _pinhole(finite_array(numbers, None, path).reshape(side, side), str(path))
    focal, column, row = finite_array(numbers[:3], (3,), path)
    return np.array([focal, focal, column, row])


def read_numbers(path: Path) -> list[str]:
    """Return the words of a small text file."""
    try:
        check_size(path, _MAX_BYTES, "camera")
        return path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the camera ({error}).") from error


def _pinhole(matrix: Float64[np.ndarray, "_ _"], source: str) -> Float64[np.ndarray, " 4"]:
    if matrix.ndim != 2 or min(matrix.shape) < 3:
        raise UserError(f"{source}: intrinsics must be 3 rows of 3 numbers, or 4 of 4.")
    return matrix[[0, 1, 0, 1], [0, 1, 2, 2]]
