"""Raw exports of the telephone apps Polycam and Record3D, as they come.

Both follow ARKit: camera-to-world with OpenGL's axes, the principal point in pixels of the photo.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from datasets.formats.checks import finite_array
from datasets.formats.image_files import describe_folder, list_folder, list_images
from datasets.formats.options import ReadOptions
from datasets.formats.transforms import scene_of_file
from datasets.formats.transforms_file import parse_transforms, pinhole_frame, stated
from datasets.posed_scene import PosedScene
from utils.errors import UserError
from utils.files import read_json

_MILLIMETRE = 1e-3


def read_polycam(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a raw export of Polycam, the cameras that the app corrected where there are such.

    ``keyframes/cameras/1.json`` holds ``t_00`` to ``t_23``, ``fx fy cx cy``, ``width height``;
    depth maps are in millimetres.
    """
    root = folder / "keyframes"
    names = ("corrected_cameras", "corrected_images"), ("cameras", "images")
    pairs = [(root / cameras, root / images) for cameras, images in names]
    found = [pair for pair in pairs if all(place.is_dir() for place in pair)]
    if not found:
        raise UserError(
            f"{folder}: no keyframes/cameras and keyframes/images of Polycam; "
            f"{describe_folder(root)}. Export it from Polycam as raw data."
        )
    (cameras, images), frames = found[0], []
    for path in (path for path in list_folder(cameras) if path.suffix == ".json"):
        camera = read_json(path, "camera")
        keys = [f"t_{row}{column}" for row in range(3) for column in range(4)]
        c2w = finite_array([camera.get(key) for key in keys], (12,), f"{path}: t_00 to t_23")
        intrinsics = finite_array([camera.get(key) for key in ("fx", "fy", "cx", "cy")], (4,), path)
        frame = pinhole_frame(f"keyframes/{images.name}/{path.stem}", c2w, intrinsics)
        frame |= stated(w=camera.get("width"), h=camera.get("height"))
        depth = root / "depth" / f"{path.stem}.png"
        if depth.is_file():
            frame |= {"depth_file_path": f"keyframes/depth/{depth.name}"}
        frames.append(frame)
    content = {"frames": frames, "depth_unit_scale_factor": _MILLIMETRE}
    return scene_of_file(root, parse_transforms(content, root), options)


def read_record3d(folder: Path, options: ReadOptions) -> PosedScene:
    """Read an export of Record3D as EXR and RGB, or an unpacked ``.r3d`` file.

    ``metadata.json`` (or ``metadata``) holds ``K``, by columns, the size ``w h`` and for each photo
    a quaternion (x y z w) and a position. Its depth maps are not read.
    """
    unpacked = (folder / "rgbd").is_dir()
    exported = folder / "EXR_RGBD" if (folder / "EXR_RGBD").is_dir() else folder
    path, photos = exported / "metadata.json", exported / "rgb"
    if unpacked:
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
        raise UserError(f"{path}: the quaternion of one of the poses is no rotation.")
    columns = finite_array(content.get("K"), (9,), f"{path}: K")
    frames = []
    for image, pose in zip(images, poses, strict=True):
        rotation = Rotation.from_quat(pose[:4]).as_matrix()
        c2w = np.concatenate([rotation, pose[4:, None]], 1)
        frames.append(pinhole_frame(f"{photos.name}/{image.name}", c2w, columns[[0, 4, 6, 7]]))
    size = stated(w=content.get("w"), h=content.get("h"))
    return scene_of_file(path, parse_transforms({"frames": frames, **size}, path), options)
