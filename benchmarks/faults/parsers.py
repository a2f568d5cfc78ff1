"""Every parser of files from elsewhere, each with a whole file that it reads."""

from __future__ import annotations

import contextlib
import io
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from apps.rendering.paths import TRANSFORMS_NAME, read_camera_path
from datasets.formats.colmap_model import read_cameras, read_images, read_points
from datasets.formats.decoding import read_image, read_mask
from datasets.formats.images import DepthFile, read_depth, read_pfm
from datasets.formats.mvsnet_files import read_camera_file, read_pairs
from datasets.formats.registry import open_scene, read_scene_list
from datasets.formats.transforms_file import read_transforms_file
from datasets.scene_index import read_index
from models.checkpoint import read_checkpoint
from models.config import BackboneConfig, ModelConfig
from models.vggt.config import VGGTConfig
from models.vggt.weights import load_weights, read_config
from training.config import GeneralTrainingConfig
from utils.config import parse_config
from utils.errors import UserError
from utils.files import load_safely


@dataclass(frozen=True)
class Parser:
    """A reader of one file."""

    name: str
    """Of the file, or where it lies below a folder of its own."""
    content: bytes
    """Of a file that it reads."""
    read: Callable[[Path], object]
    beside: tuple[tuple[str, bytes], ...] = ()
    """Names and contents of other files that it needs, which stay whole."""


_EYE = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
_CAMERA = f"extrinsic\n{_EYE}\nintrinsic\n9 0 4\n0 9 3\n0 0 1\n\n425 2.5 192 900\n".encode()
_IMAGE_ROW = struct.pack("<QI7dI", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1)
_POINT_ROW = struct.pack("<QQ3d3BdQII", 1, 1, 0.0, 1.0, 2.0, 1, 2, 3, 0.5, 1, 1, 0)
_NAMES = ("0.png", "1.png", "2.png")


def all_parsers() -> list[Parser]:
    """Return the parsers of cameras, images, lists, weights and settings."""
    return [*_camera_parsers(), *_image_parsers(), *_scene_parsers(), *_model_parsers()]


def _camera_parsers() -> list[Parser]:
    path_size = (8, 8), (8, 8)
    return [
        Parser("00000000_cam.txt", _CAMERA, read_camera_file),
        Parser("pair.txt", b"2\n0\n1 1 10.5\n1\n1 0 3.5\n", read_pairs),
        Parser("train.txt", b"scan1\nscan2 # two\n", partial(read_scene_list, plain_names=True)),
        Parser("cameras.bin", struct.pack("<QIiQQ4d", 1, 1, 1, 8, 6, 9, 9, 4, 3), read_cameras),
        Parser(
            "images.bin", _IMAGE_ROW + b"a.png\0" + struct.pack("<QddQ", 1, 1, 2, 3), read_images
        ),
        Parser("points3D.bin", _POINT_ROW, read_points),
        Parser("cameras.txt", b"# list\n1 PINHOLE 8 6 9 9 4 3\n", read_cameras),
        Parser("images.txt", b"# list\n1 1 0 0 0 0 0 0 1 a b.png\n1 2 3\n", read_images),
        Parser("points3D.txt", b"1 0 1 2 1 2 3 0.5 1 0 2 0\n", read_points),
        Parser("path.json", _camera_path(), lambda path: read_camera_path(path, *path_size)),
        Parser(
            TRANSFORMS_NAME,
            json.dumps({"transform": np.eye(4)[:3].tolist(), "scale": 0.5}).encode(),
            lambda path: read_camera_path(path.with_name("path.json"), *path_size),
            (("path.json", _camera_path()),),
        ),
    ]


def _camera_path() -> bytes:
    frames = [{"camera_to_world": np.eye(4).ravel().tolist(), "fov": 50.0}] * 2
    return json.dumps({"camera_path": frames, "render_height": 8, "render_width": 8}).encode()


def _image_parsers() -> list[Parser]:
    read = partial(read_image, background=1.0, least=(8, 12))
    formats = {"png": "RGBA", "jpg": "RGB", "tif": "RGB", "webp": "RGB", "bmp": "RGB"}
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        *(Parser(f"a.{name}", _image(mode, name, exif), read) for name, mode in formats.items()),
        Parser("a.avif", _image("RGB", "avif"), read),
        Parser("a.heic", _image("RGB", "heif"), read),
        Parser("mask.png", _image("L", "png"), read_mask),
        Parser("depth.png", _image("I;16", "png"), lambda path: read_depth(DepthFile(path, 0.5))),
        Parser("depth.npy", _array(np.ones((3, 4))), lambda path: read_depth(DepthFile(path))),
        Parser("depth.pfm", b"Pf\n2 2\n-1.0\n" + struct.pack("<4f", 1, 2, 3, 4), read_pfm),
    ]


def _image(mode: str, name: str, exif: Image.Exif | None = None) -> bytes:
    buffer, kind = io.BytesIO(), {"jpg": "jpeg", "tif": "tiff"}.get(name, name)
    options = {} if exif is None else {"exif": exif}
    Image.new(mode, (12, 8)).save(buffer, kind, **options)
    return buffer.getvalue()


def _array(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def _scene_parsers() -> list[Parser]:
    images = [(name, _image("RGB", "png")) for name in _NAMES]
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = range(3)
    frames = [
        {"file_path": name, "transform_matrix": pose.tolist(), "k1": 0.1}
        for name, pose in zip(_NAMES, poses, strict=True)
    ]
    transforms = {"fl_x": 20.0, "w": 12, "h": 8, "near": 1, "far": 2, "frames": frames}
    rows = [[*np.c_[pose[:3], [8, 12, 20.0]].ravel(), 1, 2] for pose in poses]
    index = {"views": 3, "size": [4, 5], "splits": {"train": [0, 2]}}
    return [
        Parser("lone/transforms.json", json.dumps(transforms).encode(), read_transforms_file),
        Parser(
            "transforms/transforms.json",
            json.dumps(transforms).encode(),
            lambda path: open_scene("transforms", path.parent),
            tuple(images),
        ),
        Parser(
            "llff/poses_bounds.npy",
            _array(np.array(rows)),
            lambda path: open_scene("llff", path.parent),
            tuple((f"images/{name}", content) for name, content in images),
        ),
        Parser(
            "scenes.json",
            json.dumps({"format": "colmap", "scenes": {"a": index}}).encode(),
            lambda path: read_index("colmap", path.parent),
        ),
    ]


def _model_parsers() -> list[Parser]:
    network = torch.nn.Linear(2, 2)
    pickled = io.BytesIO()
    torch.save(network.state_dict(), pickled)
    settings = {"model": asdict(ModelConfig()), "backbone": asdict(BackboneConfig())}
    header = {"settings": settings, "backbone_fingerprint": "0"}
    return [
        Parser(
            "config.json",
            json.dumps(asdict(VGGTConfig())).encode(),
            lambda path: read_config(path.parent),
        ),
        Parser(
            "safetensors/model.safetensors",
            save(network.state_dict()),
            lambda path: load_weights(torch.nn.Linear(2, 2), path.parent),
        ),
        Parser(
            "pt/model.pt",
            pickled.getvalue(),
            lambda path: load_weights(torch.nn.Linear(2, 2), path.parent),
        ),
        Parser("last.ckpt", pickled.getvalue(), load_safely),
        Parser("header.json", json.dumps(header).encode(), _read_header),
        Parser("settings.txt", b"N_samples = 4\nexpname = a\nmix = [dtu:x]\n", _read_settings),
    ]


def _read_header(path: Path) -> object:
    """Read a checkpoint with settings that a JSON file holds."""
    try:
        header = json.loads(path.read_text())
    except (ValueError, RecursionError):
        return None
    checkpoint = path.with_suffix(path.suffix + ".ckpt")
    weight = {"model.volume.points.inward.weight": torch.zeros(1)}
    torch.save({"vggt_nerf": header, "state_dict": weight}, checkpoint)
    return read_checkpoint(str(checkpoint))


def _read_settings(path: Path) -> object:
    with contextlib.redirect_stderr(io.StringIO()) as words:
        try:
            return parse_config(GeneralTrainingConfig, ["--config", str(path)])
        except SystemExit as stop:
            raise UserError(f"{path}: {words.getvalue()[-200:]}") from stop
