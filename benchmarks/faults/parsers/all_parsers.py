"""All parsers of external files, each with a valid sample file."""

from __future__ import annotations

import json
import struct
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from apps.rendering.geometry_files import read_points as read_cloud
from apps.rendering.paths import TRANSFORMS_NAME, read_camera_path
from benchmarks.faults.parsers.captures import capture_parsers
from benchmarks.faults.parsers.layouts import PAIRS, layout_parsers
from benchmarks.faults.parsers.models import model_parsers
from benchmarks.faults.parsers.records import record_parsers
from benchmarks.faults.parsers.samples import Parser, array_file, check_cameras, image_file
from datasets.formats.colmap.model import read_cameras, read_images, read_points
from datasets.formats.images.decoding import read_image, read_mask
from datasets.formats.images.depth_maps import DepthFile, read_depth, read_pfm
from datasets.formats.mvsnet_files import read_camera_file, read_pairs
from datasets.formats.splits import read_scene_list

_IDENTITY = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
_CAMERA = f"extrinsic\n{_IDENTITY}\nintrinsic\n9 0 4\n0 9 3\n0 0 1\n\n425 2.5 192 900\n".encode()
_CLOUD = b"""ply
format ascii 1.0
element vertex 2
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
end_header
0 0 0 1 2 3
1 1 1 4 5 6
"""
_HEADER = _CLOUD.partition(b"0 0 0")[0].replace(b"ascii", b"binary_little_endian")
_BINARY_CLOUD = _HEADER + struct.pack("<3f3B3f3B", 0, 0, 0, 1, 2, 3, 1, 1, 1, 4, 5, 6)
_IMAGE_ROW = struct.pack("<QI7dI", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1)
_POINT_ROW = struct.pack("<QQ3d3BdQII", 1, 1, 0.0, 1.0, 2.0, 1, 2, 3, 0.5, 1, 1, 0)


def all_parsers() -> list[Parser]:
    """Return the parsers of cameras, images, scenes, weights, settings and records."""
    scenes = *layout_parsers(), *capture_parsers()
    return [
        *(*_camera_parsers(), *_image_parsers(), *scenes, *model_parsers()),
        *record_parsers(),
    ]


def _camera_parsers() -> list[Parser]:
    return [
        Parser("00000000_cam.txt", _CAMERA, read_camera_file),
        Parser("pair.txt", PAIRS, read_pairs),
        Parser("train.txt", b"scan1\nscan2 # two\n", partial(read_scene_list, plain_names=True)),
        Parser("cameras.bin", struct.pack("<QIiQQ4d", 1, 1, 1, 8, 6, 9, 9, 4, 3), read_cameras),
        Parser(
            "images.bin", _IMAGE_ROW + b"a.png\0" + struct.pack("<QddQ", 1, 1, 2, 3), read_images
        ),
        Parser("points3D.bin", _POINT_ROW, read_points),
        Parser("cameras.txt", b"# list\n1 PINHOLE 8 6 9 9 4 3\n", read_cameras),
        Parser("images.txt", b"# list\n1 1 0 0 0 0 0 0 1 a b.png\n1 2 3\n", read_images),
        Parser("points3D.txt", b"1 0 1 2 1 2 3 0.5 1 0 2 0\n", read_points),
        Parser("cloud.ply", _CLOUD, read_cloud),
        Parser("binary.ply", _BINARY_CLOUD, read_cloud),
        Parser("path.json", _camera_path(), _read_path),
        Parser(
            TRANSFORMS_NAME,
            json.dumps({"transform": np.eye(4)[:3].tolist(), "scale": 0.5}).encode(),
            lambda path: _read_path(path.with_name("path.json")),
            (("path.json", _camera_path()),),
        ),
    ]


def _read_path(path: Path) -> object:
    cameras = read_camera_path(path, (8, 8), (8, 8)).cameras
    check_cameras(cameras)
    return cameras


def _camera_path() -> bytes:
    frames = [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 50.0}] * 2
    return json.dumps({"camera_path": frames, "render_height": 8, "render_width": 8}).encode()


def _image_parsers() -> list[Parser]:
    read = partial(read_image, background=1.0, min_size=(8, 12))
    formats = {"png": "RGBA", "jpg": "RGB", "tif": "RGB", "webp": "RGB", "bmp": "RGB"}
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        *(
            Parser(f"a.{name}", image_file(mode, name, exif), read)
            for name, mode in formats.items()
        ),
        Parser("a.avif", image_file("RGB", "avif"), read),
        Parser("a.heic", image_file("RGB", "heif"), read),
        Parser("mask.png", image_file("L", "png"), read_mask),
        Parser(
            "depth.png", image_file("I;16", "png"), lambda path: read_depth(DepthFile(path, 0.5))
        ),
        Parser("depth.npy", array_file(np.ones((3, 4))), _read_depth),
        Parser("depth.pfm", b"Pf\n2 2\n-1.0\n" + struct.pack("<4f", 1, 2, 3, 4), read_pfm),
    ]


def _read_depth(path: Path) -> object:
    return read_depth(DepthFile(path, 0.5 if path.suffix == ".png" else 1.0))
