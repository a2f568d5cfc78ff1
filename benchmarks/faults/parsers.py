"""All parsers of external files, each with a valid sample file."""

from __future__ import annotations

import contextlib
import io
import json
import struct
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from apps.rendering.geometry_files import read_points as read_cloud
from apps.rendering.paths import TRANSFORMS_NAME, read_camera_path
from benchmarks.faults.scene_parsers import Parser, array_file, image_file, scene_parsers
from datasets.formats.colmap.model import read_cameras, read_images, read_points
from datasets.formats.images.decoding import read_image, read_mask
from datasets.formats.images.depth_maps import DepthFile, read_depth, read_pfm
from datasets.formats.mvsnet_files import read_camera_file, read_pairs
from datasets.formats.splits import read_scene_list
from models.baselines.config import BaselineConfig
from models.checkpoints.baselines import KIND, MVSNERF_PARTS, baseline_checkpoint
from models.checkpoints.general import checkpoint_from
from models.checkpoints.scene_file import SceneHeader, header_of, read_scene_file
from models.config import BackboneConfig, ModelConfig
from models.vggt.config import OmegaConfig, VGGTConfig
from models.vggt.weights import load_weights, read_config
from training.config import GeneralTrainingConfig
from utils.checkpoints import load_safely
from utils.config import parse_config
from utils.errors import UserError

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
_IMAGE_ROW = struct.pack("<QI7dI", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1)
_POINT_ROW = struct.pack("<QQ3d3BdQII", 1, 1, 0.0, 1.0, 2.0, 1, 2, 3, 0.5, 1, 1, 0)
_WEIGHT = "model.volume.points.inward.weight"
"""Name of a parameter that all models have."""


def all_parsers() -> list[Parser]:
    """Return the parsers of cameras, images, lists, weights and settings."""
    return [*_camera_parsers(), *_image_parsers(), *scene_parsers(), *_model_parsers()]


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
        Parser("cloud.ply", _CLOUD, read_cloud),
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


def _model_parsers() -> list[Parser]:
    network = torch.nn.Linear(2, 2)
    pickled = io.BytesIO()
    torch.save(network.state_dict(), pickled)
    settings = {"model": asdict(ModelConfig()), "backbone": asdict(BackboneConfig())}
    header = {"settings": settings, "backbone_fingerprint": "0"}
    own = {"baselines": asdict(BaselineConfig())}
    baseline = {**header, "model": "point_regression", "settings": {**settings, **own}}
    mvsnerf = dict.fromkeys(MVSNERF_PARTS, {})
    scene = SceneHeader("a", (0, 1), (2,), 2, ModelConfig(), "0", settings)
    return [
        *(
            Parser(
                f"{network}/config.json",
                json.dumps(asdict(sizes)).encode(),
                lambda path: read_config(path.parent),
            )
            for network, sizes in (("vggt", VGGTConfig()), ("vggt-omega", OmegaConfig()))
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
        Parser("header.json", json.dumps(header).encode(), partial(_read_header, "vggt_nerf")),
        Parser("baseline.json", json.dumps(baseline).encode(), partial(_read_header, KIND)),
        Parser("scene.json", json.dumps(asdict(scene)).encode(), _read_scene_header),
        Parser("mvsnerf.json", json.dumps(mvsnerf).encode(), _read_mvsnerf),
        Parser("settings.txt", b"N_samples = 4\nexpname = a\nmix = [dtu:x]\n", _read_settings),
    ]


def _read_header(kind: str, path: Path) -> object:
    """Read a checkpoint whose settings are in a JSON file."""
    content = {kind: _read_json(path), "state_dict": {_WEIGHT: torch.zeros(1)}}
    return baseline_checkpoint(content, path) or checkpoint_from(content, path)


def _read_scene_header(path: Path) -> object:
    state = {_WEIGHT: torch.zeros(1)}
    content = {"vggt_nerf_scene": _read_json(path), "state": state, "training": {}}
    torch.save(content, f"{path}.tar")
    return header_of(read_scene_file(f"{path}.tar"), path)


def _read_mvsnerf(path: Path) -> object:
    parts = _read_json(path)
    return baseline_checkpoint(parts if isinstance(parts, dict) else {}, path)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError):
        return None


def _read_settings(path: Path) -> object:
    with contextlib.redirect_stderr(io.StringIO()) as message:
        try:
            return parse_config(GeneralTrainingConfig, ["--config", str(path)])
        except SystemExit as stop:
            raise UserError(f"{path}: {message.getvalue()[-200:]}") from stop
