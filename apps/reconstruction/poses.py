"""Export of a scene's photos and cameras as ``transforms.json`` and as a COLMAP text model.

Photos are written undistorted, so that pinhole cameras describe them.
COLMAP's format: Schoenberger and Frahm, CVPR 2016, https://colmap.github.io/format.html.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor

from apps.rendering.geometry_files import PointCloud
from apps.rendering.paths import OPENGL
from datasets.posed_scene import PosedScene
from utils.files import atomic_write, write_text
from utils.images import save_image

_MAX_POINTS = 100_000


def write_poses(scene: PosedScene, cloud: PointCloud | None, folder: Path) -> str:
    """Write photos, cameras and points in the unit of the data set; return a summary line."""
    names = [f"images/{number:04d}.jpg" for number in range(len(scene.view_ids))]
    masks: dict[str, str] = {}
    for name, view in zip(names, scene.view_ids, strict=True):
        pixels = scene.read_view(view)
        save_image(folder / name, torch.from_numpy(pixels.image).permute(2, 0, 1))
        if not pixels.mask.all():
            masks[name] = f"masks/{Path(name).stem}.png"
            with atomic_write(folder / masks[name]) as partial:
                Image.fromarray(pixels.mask.astype(np.uint8) * 255).save(partial)
    c2w = scene.cameras_of_files.c2w.double().clone()
    c2w[:, :3, 3] *= scene.unit.factor
    _write_transforms(scene, names, masks, c2w, folder / "transforms.json")
    _write_colmap(scene, names, c2w, cloud, folder / "sparse" / "0")
    return (
        f"{folder}: {len(names)} photos without distortion, transforms.json for nerfstudio and "
        "instant-ngp, sparse/0 for COLMAP and Gaussian splatting"
    )


def _write_transforms(
    scene: PosedScene,
    names: list[str],
    masks: dict[str, str],
    c2w: Float64[Tensor, "view 4 4"],
    path: Path,
) -> None:
    frames: list[dict[str, Any]] = []
    for name, matrix, k in zip(names, c2w, scene.cameras.intrinsics.double(), strict=True):
        pinhole = {"fl_x": k[0, 0], "fl_y": k[1, 1], "cx": k[0, 2], "cy": k[1, 2]}
        frame: dict[str, Any] = {"file_path": name}
        frame |= {key: value.item() for key, value in pinhole.items()}
        frame["transform_matrix"] = (matrix * OPENGL).tolist()
        frames.append(frame | ({"mask_path": masks[name]} if name in masks else {}))
    near, far = (scene.near_far * scene.unit.factor).tolist()
    height, width = scene.image_size
    content = {"camera_model": "PINHOLE", "w": width, "h": height, "near": near, "far": far}
    write_text(path, json.dumps({**content, "frames": frames}, indent=1))


def _write_colmap(
    scene: PosedScene,
    names: list[str],
    c2w: Float64[Tensor, "view 4 4"],
    cloud: PointCloud | None,
    folder: Path,
) -> None:
    height, width = scene.image_size
    cameras, images = ["# CAMERA_ID MODEL WIDTH HEIGHT fx fy cx cy"], []
    for number, (name, pose) in enumerate(zip(names, c2w, strict=True), start=1):
        k = scene.cameras.intrinsics[number - 1].double()
        pinhole = _joined([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])
        cameras.append(f"{number} PINHOLE {width} {height} {pinhole}")
        rotation = pose[:3, :3].T
        quaternion = Rotation.from_matrix(rotation.numpy()).as_quat(scalar_first=True)
        translation = -rotation @ pose[:3, 3]
        pose_text = _joined([*quaternion, *translation])
        # The second line of an image would list its features.
        images += [f"{number} {pose_text} {number} {Path(name).name}", ""]
    write_text(folder / "cameras.txt", "\n".join(cameras) + "\n")
    header = "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then its features"
    write_text(folder / "images.txt", "\n".join([header, *images]) + "\n")
    rows = []
    if cloud is not None:
        step = max(1, math.ceil(len(cloud.points) / _MAX_POINTS))
        points, colors = cloud.points[::step].double().tolist(), cloud.color_bytes[::step].tolist()
        for number, (point, color) in enumerate(zip(points, colors, strict=True), start=1):
            rows.append(f"{number} {_joined(point)} {color[0]} {color[1]} {color[2]} 0")
    header = "# POINT3D_ID X Y Z R G B ERROR, without tracks"
    write_text(folder / "points3D.txt", "\n".join([header, *rows]) + "\n")


def _joined(numbers: list[Any]) -> str:
    return " ".join(f"{float(number):.12g}" for number in numbers)
