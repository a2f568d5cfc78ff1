"""Readers of RGB-D scans (ScanNet, 7-Scenes) and of the phone apps Polycam and Record3D.

The scans have OpenCV axes, and photos whose pose was lost (not finite) are left out. The apps
follow ARKit, with OpenGL axes. Principal points are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from datasets.formats.checks import finite_array
from datasets.formats.images.image_files import describe_folder, list_folder, list_images
from datasets.formats.messages import warn_once
from datasets.formats.options import ReadOptions
from datasets.formats.research_scenes import read_pinhole, read_words
from datasets.formats.transforms import scene_of_frames
from datasets.formats.transforms_file import OPENGL_AXES, pinhole_frame
from datasets.posed_scene import PosedScene
from utils.errors import UserError
from utils.files import read_json

_MILLIMETRE = 1e-3


def read_scannet(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scan of ScanNet (Dai et al., CVPR 2017) as its tools unpack it.

    ``color/0.jpg`` goes with ``pose/0.txt``; ``intrinsic/intrinsic_color.txt`` holds a matrix.
    Depth maps are not read, as another camera took them.
    """
    photos = list_images(folder / "color")
    poses = [folder / "pose" / f"{photo.stem}.txt" for photo in photos]
    return _read_scan(folder, folder / "intrinsic" / "intrinsic_color.txt", photos, poses, options)


def read_seven_scenes(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a sequence of 7-Scenes (Shotton et al., CVPR 2013): ``frame-000000.color.png``, ...

    Its files hold no intrinsics, so ``camera-intrinsics.txt`` must be added.
    """
    path = folder / "camera-intrinsics.txt"
    if not path.is_file():
        raise UserError(
            f"{path}: the file is missing. Write the intrinsics of the photos into it, three rows "
            "of three numbers: fx 0 cx, 0 fy cy, 0 0 1."
        )
    photos = [image for image in list_images(folder) if image.stem.endswith(".color")]
    poses = [photo.with_name(photo.stem.removesuffix(".color") + ".pose.txt") for photo in photos]
    return _read_scan(folder, path, photos, poses, options)


def _read_scan(
    folder: Path,
    intrinsics: Path,
    photos: Sequence[Path],
    poses: Sequence[Path],
    options: ReadOptions,
) -> PosedScene:
    pinhole, frames = read_pinhole(intrinsics), []
    for photo, pose in zip(photos, poses, strict=True):
        words = read_words(pose)
        if any(word.lstrip("+-").lower() in ("inf", "nan") for word in words):
            continue
        c2w = finite_array(words, (16,), pose).reshape(4, 4)
        frames.append(pinhole_frame(str(photo.relative_to(folder)), c2w, pinhole))
    if lost := len(photos) - len(frames):
        warn_once(f"{folder}: {lost} photos whose pose was lost are left out")
    return scene_of_frames(folder / intrinsics.name, frames, options)


def read_polycam(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a raw export of Polycam, with its corrected cameras if there are any.

    ``keyframes/cameras/1.json`` holds ``t_00`` to ``t_23``, ``fx fy cx cy``, ``width height``;
    depth maps are in millimetres.
    """
    root = folder / "keyframes"
    names = ("corrected_cameras", "corrected_images"), ("cameras", "images")
    pairs = [(root / cameras, root / images) for cameras, images in names]
    pair = next((pair for pair in pairs if all(entry.is_dir() for entry in pair)), None)
    if pair is None:
        raise UserError(
            f"{folder}: no keyframes/cameras and keyframes/images of Polycam; "
            f"{describe_folder(root)}. Export it from Polycam as raw data."
        )
    (cameras, images), frames = pair, []
    for path in (path for path in list_folder(cameras) if path.suffix == ".json"):
        camera = read_json(path, "camera")
        keys = [f"t_{row}{column}" for row in range(3) for column in range(4)]
        c2w = finite_array([camera.get(key) for key in keys], (12,), f"{path}: t_00 to t_23")
        pinhole = finite_array([camera.get(key) for key in ("fx", "fy", "cx", "cy")], (4,), path)
        depth = root / "depth" / f"{path.stem}.png"
        frame = pinhole_frame(
            f"keyframes/{images.name}/{path.stem}",
            c2w.reshape(3, 4) * OPENGL_AXES,
            pinhole,
            w=camera.get("width"),
            h=camera.get("height"),
            depth_file_path=f"keyframes/depth/{depth.name}" if depth.is_file() else None,
        )
        frames.append(frame)
    return scene_of_frames(root, frames, options, depth_unit_scale_factor=_MILLIMETRE)


def read_record3d(folder: Path, options: ReadOptions) -> PosedScene:
    """Read an export of Record3D as EXR and RGB, or an unpacked ``.r3d`` file.

    ``metadata.json`` (or ``metadata``) holds ``K`` by columns, the size ``w h`` and for each photo
    a quaternion (x y z w) and a position. Its depth maps are not read.
    """
    exported = folder / "EXR_RGBD" if (folder / "EXR_RGBD").is_dir() else folder
    path, photos = exported / "metadata.json", exported / "rgb"
    if (folder / "rgbd").is_dir():
        path, photos = folder / "metadata", folder / "rgbd"
    content = read_json(path, "camera file of Record3D")
    images = list_images(photos)
    poses = finite_array(content.get("poses"), None, f"{path}: poses")
    if poses.shape != (len(images), 7):
        raise UserError(
            f"{path}: holds poses of shape {poses.shape}, but {photos} holds {len(images)} photos; "
            "each needs a quaternion and a position. Export it from Record3D again."
        )
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(poses[:, :4], axis=1)
    if not ((lengths > 0.5) & (lengths < 2)).all():
        raise UserError(
            f"{path}: the quaternion of a pose is not a rotation. Export it from Record3D again."
        )
    pinhole = finite_array(content.get("K"), (9,), f"{path}: K")[[0, 4, 6, 7]]
    frames = []
    for image, pose in zip(images, poses, strict=True):
        rotation = Rotation.from_quat(pose[:4]).as_matrix()
        c2w = np.concatenate([rotation, pose[4:, None]], 1) * OPENGL_AXES
        frames.append(pinhole_frame(f"{photos.name}/{image.name}", c2w, pinhole))
    return scene_of_frames(path, frames, options, w=content.get("w"), h=content.get("h"))
