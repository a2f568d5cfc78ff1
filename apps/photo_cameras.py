"""Cameras of photos that have none, estimated by VGGT or COLMAP, as a ``transforms.json``.

Distances are in an arbitrary unit, the backbone's or COLMAP's own.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.formats.images import Lens
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import PhotoReader
from datasets.formats.registry import open_scene
from datasets.photo_folder import UprightPhoto, fit_photos
from models.vggt.backbone import BackboneFeatures, FrozenVGGT
from models.vggt.pose_encoding import decode_pose
from utils.cameras import Cameras, crop_intrinsics, resize_intrinsics
from utils.errors import UserError
from utils.files import write_text

_LOG = logging.getLogger(__name__)
_OPENGL = (1.0, -1.0, -1.0, 1.0)
_QUANTILES = (0.02, 0.98)
_NEAR_FACTOR, _FAR_FACTOR = 0.6, 1.8
"""Wide, since the depth of a small backbone is rough."""
_MAX_DEPTHS = 1 << 20
"""Of more depths, evenly spread ones are taken for the quantiles."""
_DISTORTION = {
    "perspective": ("OPENCV", ("k1", "k2", "p1", "p2", "k3")),
    "fisheye": ("OPENCV_FISHEYE", ("k1", "k2", "k3", "k4")),
}
"""Model and coefficients in ``transforms.json``, by model of the lens."""


@dataclass(frozen=True)
class PhotoCameras:
    """Estimated cameras."""

    cameras: Cameras
    """Of the whole photos, each at its own size; one axis."""
    near_far: tuple[float, float]
    lenses: tuple[Lens, ...] = ()
    """With distortion, if that is known; one for each photo."""


def estimate_cameras(photos: Sequence[UprightPhoto], backbone: FrozenVGGT) -> PhotoCameras:
    """Estimate the cameras of all photos together by a backbone."""
    fitted = fit_photos(photos, backbone.long_side)
    device = next(backbone.network.parameters()).device
    features = backbone(fitted.images[None].to(device), ("camera", "depth"))
    if features.pose_enc is None or not features.pose_enc.isfinite().all():
        raise UserError("The backbone gave no finite cameras; are its weights trained?")
    height, width = features.network_size
    seen = decode_pose(features.pose_enc[0].float().cpu(), height, width)
    # From the network's image to the photo that it is a part of.
    intrinsics = []
    for own, (top, left, rows, columns) in zip(seen.intrinsics, fitted.crops, strict=True):
        resized = resize_intrinsics(own, columns / width, rows / height)
        intrinsics.append(crop_intrinsics(resized, float(-left), float(-top)))
    return PhotoCameras(Cameras(torch.stack(intrinsics), seen.c2w), _depth_range(features))


def reconstruct_cameras(photos: Sequence[UprightPhoto]) -> tuple[list[UprightPhoto], PhotoCameras]:
    """Match all photos by COLMAP, on the CPU; return those that it could place."""
    try:
        import pycolmap  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError("--method colmap needs pycolmap: pip install pycolmap") from error
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "images").mkdir()
        originals = {}
        for number, photo in enumerate(photos):
            link = root / "images" / f"{number:06d}{photo.path.suffix}"
            link.symlink_to(photo.path.absolute())
            originals[link.name] = photo
        _solve(pycolmap, root, one_camera=len({photo.size for photo in photos}) == 1)
        scene = open_scene("colmap", root, ReadOptions(photos[0].size))
        reader = scene.read_view
        assert isinstance(reader, PhotoReader)
        placed = [originals[view] for view in scene.view_names]
        lenses = tuple(photo.lens for photo in reader.photos if photo.lens is not None)
    if len(placed) < len(photos):
        _LOG.warning("COLMAP placed %d of %d photos; others are left out", len(placed), len(photos))
    intrinsics = torch.stack([lens.intrinsics for lens in lenses]).float()
    near, far = scene.near_far.tolist()
    return placed, PhotoCameras(Cameras(intrinsics, scene.cameras.c2w), (near, far), lenses)


def write_transforms(path: Path, photos: Sequence[UprightPhoto], estimated: PhotoCameras) -> None:
    """Write ``transforms.json``; photos are named relative to its folder."""
    cameras = estimated.cameras
    frames = [_frame(photo, cameras[place], path.parent) for place, photo in enumerate(photos)]
    for frame, lens in zip(frames, estimated.lenses, strict=False):
        model, names = _DISTORTION[lens.model]
        frame |= {"camera_model": model, **dict(zip(names, lens.coefficients, strict=True))}
    near, far = estimated.near_far
    content = {"near": near, "far": far, "frames": frames}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False))


def _frame(photo: UprightPhoto, camera: Cameras, folder: Path) -> dict[str, Any]:
    matrix = camera.c2w.double() * torch.tensor(_OPENGL, dtype=torch.float64)
    intrinsics = camera.intrinsics.double()
    return {
        "file_path": Path(os.path.relpath(photo.path.absolute(), folder.absolute())).as_posix(),
        "fl_x": intrinsics[0, 0].item(),
        "fl_y": intrinsics[1, 1].item(),
        "cx": intrinsics[0, 2].item(),
        "cy": intrinsics[1, 2].item(),
        "w": photo.size[1],
        "h": photo.size[0],
        "transform_matrix": matrix.tolist(),
    }


def _depth_range(features: BackboneFeatures) -> tuple[float, float]:
    """Return near and far around the more confident half of the depths."""
    assert features.depth is not None and features.depth_conf is not None
    depth, confidence = features.depth.float().cpu(), features.depth_conf.float().cpu()
    usable = depth.isfinite() & (depth > 0)
    confident = depth[usable & (confidence >= confidence.median())]
    if not len(confident):
        raise UserError("The backbone gave no depth; are its weights trained?")
    confident = confident[:: -(-len(confident) // _MAX_DEPTHS)]
    low, high = (confident.quantile(share).item() for share in _QUANTILES)
    return _NEAR_FACTOR * low, _FAR_FACTOR * high


def _solve(pycolmap: Any, root: Path, one_camera: bool) -> None:  # noqa: ANN401
    """Write the largest model that is found to ``sparse/0``."""
    database, images = root / "database.db", root / "images"
    mode = pycolmap.CameraMode.SINGLE if one_camera else pycolmap.CameraMode.PER_IMAGE
    try:
        pycolmap.extract_features(database, images, camera_mode=mode)
        pycolmap.match_exhaustive(database)
        models = pycolmap.incremental_mapping(database, images, root / "models")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"COLMAP failed on these photos ({str(error)[:200]}).") from error
    if not models:
        raise UserError(
            "COLMAP found no solution: the photos have too little texture or overlap. Take more, "
            "closer to each other, or use --method vggt."
        )
    best = max(models.values(), key=lambda model: model.num_reg_images())
    (root / "sparse" / "0").mkdir(parents=True)
    best.write_binary(str(root / "sparse" / "0"))
