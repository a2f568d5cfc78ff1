"""Readers of the layouts of data sets and research code, each with a scene of three photos."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np

from benchmarks.faults.parsers.samples import (
    LENS,
    OPENGL_POSES,
    POSES,
    SIZE,
    Parser,
    array_file,
    json_file,
    photo_files,
    scene_parsers,
    text_file,
)
from datasets.formats.transforms_file import read_transforms_file
from datasets.scene_cache import CAMERAS_NAME, ESTIMATED
from datasets.scene_index import read_index

DEPTH = b"Pf\n12 8\n-1.0\n" + struct.pack("<96f", *range(96))
PAIRS = b"3\n0\n1 1 10.5\n1\n2 0 3.5 2 3.5\n2\n1 1 1\n"
_CAMERA = "extrinsic\n{}\n\nintrinsic\n20 0 6\n0 20 4\n0 0 1\n\n1 0.1 16 2\n"
_IDS = ["a0", "a1", "a2"]


def layout_parsers() -> list[Parser]:
    """Return the readers of all layouts, with one damaged file of each kind."""
    index = {"views": 3, "size": [4, 5], "splits": {"train": [0, 2]}}
    transforms = json_file(**_transforms())
    estimated = f"{ESTIMATED}/{CAMERAS_NAME}"
    return [
        Parser("lone/transforms.json", transforms, read_transforms_file),
        Parser("scenes.json", json_file(format="colmap", scenes={"a": index}), _read_index),
        *_scenes("transforms", {"transforms.json": transforms, **photo_files()}),
        *_scenes("photos", {estimated: transforms, **photo_files(f"{ESTIMATED}/{{}}.png")}),
        *_scenes("blender", _blender(), "transforms_train.json", "transforms_val.json"),
        *_scenes("llff", {"poses_bounds.npy": _llff(), **photo_files("images/{}.png")}),
        *_scenes("dtu", _dtu(), *_DTU_FILES, scan="scan1"),
        *_scenes("blendedmvs", _blendedmvs(), "cams/00000000_cam.txt", "cams/pair.txt"),
        *_scenes("sdfstudio", {"meta_data.json": _sdfstudio(), **photo_files()}),
        *_scenes("nsvf", _nsvf(), "intrinsics.txt", "pose/0_1.txt"),
        *_scenes("neus", {"cameras_sphere.npz": _projections(), **photo_files("image/{}.png")}),
        *_scenes("nerfies", _nerfies(), "dataset.json", "camera/a1.json", "scene.json"),
    ]


def _scenes(name: str, files: dict[str, bytes], *damaged: str, scan: str = "") -> list[Parser]:
    """Damage the first file if none is named."""
    return scene_parsers(name, files, damaged or [next(iter(files))], scan)


def _read_index(path: Path) -> object:
    return read_index("colmap", path.parent)


def _mvsnet(folder: str) -> dict[str, bytes]:
    cameras = [_CAMERA.format(text_file(np.linalg.inv(pose)).decode()) for pose in POSES]
    files = {f"{folder}/{n:08d}_cam.txt": text.encode() for n, text in enumerate(cameras)}
    return {**files, f"{folder}/pair.txt": PAIRS}


_DTU_FILES = (
    *("Cameras/00000000_cam.txt", "Cameras/pair.txt", "Depths/scan1/depth_map_0000.pfm"),
    "Rectified/scan1/rect_001_3_r5000.png",
)


def _dtu() -> dict[str, bytes]:
    images = photo_files()
    names = [f"Rectified/scan1/rect_{n:03d}_3_r5000.png" for n in range(1, len(images) + 1)]
    photos = dict(zip(names, images.values(), strict=True))
    return {**_mvsnet("Cameras"), **photos, "Depths/scan1/depth_map_0000.pfm": DEPTH}


def _blendedmvs() -> dict[str, bytes]:
    return {**_mvsnet("cams"), **photo_files("images/0000000{}.png")}


def _transforms(prefix: str = "") -> dict[str, object]:
    frames = [
        {"file_path": f"{prefix}{number}.png", "transform_matrix": pose.tolist()}
        for number, pose in enumerate(OPENGL_POSES)
    ]
    return {"fl_x": 20.0, "fl_y": 20.5, **SIZE, "near": 1, "far": 2, "frames": frames}


def _blender() -> dict[str, bytes]:
    files = {}
    for split in ("train", "val", "test"):
        content = json_file(**_transforms(f"{split}_"), camera_angle_x=0.6)
        files |= {f"transforms_{split}.json": content, **photo_files(f"{split}_{{}}.png")}
    return files


def _llff() -> bytes:
    rows = [[*np.c_[pose[:3], [8, 12, 20.0]].ravel(), 1, 2] for pose in POSES]
    return array_file(np.array(rows))


def _sdfstudio() -> bytes:
    frames = [
        {"rgb_path": f"{n}.png", "camtoworld": pose.tolist(), "intrinsics": LENS.tolist()}
        for n, pose in enumerate(POSES)
    ]
    box = {"near": 1.0, "far": 2.0, "collider_type": "near_far"}
    return json_file(frames=frames, scene_box=box, width=12, height=8)


def _nsvf() -> dict[str, bytes]:
    poses = {f"pose/0_{number}.txt": text_file(pose) for number, pose in enumerate(POSES)}
    return {"intrinsics.txt": text_file(LENS), **poses, **photo_files("rgb/0_{}.png")}


def _projections() -> bytes:
    buffer = io.BytesIO()
    matrices = {f"world_mat_{n}": LENS @ np.linalg.inv(pose) for n, pose in enumerate(POSES)}
    np.savez_compressed(buffer, **matrices)
    return buffer.getvalue()


def _nerfies() -> dict[str, bytes]:
    files = {
        "dataset.json": json_file(ids=_IDS, train_ids=_IDS[:2], val_ids=_IDS[2:]),
        "scene.json": json_file(scale=0.5, center=[0, 0, 0], near=1.0, far=2.0),
    }
    for name, pose in zip(_IDS, POSES, strict=True):
        files[f"camera/{name}.json"] = json_file(
            orientation=pose[:3, :3].T.tolist(),
            position=pose[:3, 3].tolist(),
            focal_length=20.0,
            principal_point=[6, 4],
            skew=0.0,
            pixel_aspect_ratio=1.0,
            image_size=[12, 8],
            radial_distortion=[0, 0, 0],
            tangential=[0, 0],
        )
    return {**files, **photo_files("rgb/1x/a{}.png")}
