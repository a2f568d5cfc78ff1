"""Cameras for photos that have none: VGGT or COLMAP looks at them, a ``transforms.json`` results.

Distances are in an arbitrary unit, the backbone's or COLMAP's own.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.formats.lenses import Lens
from datasets.formats.registry import ESTIMATED
from datasets.photo_folder import UprightPhoto, collect_photos, fit_photos
from datasets.structure_from_motion import reconstruct
from models.backbone import check_backbone_size
from models.vggt.frozen import BackboneFeatures, FrozenVGGT
from models.vggt.network import VGGT
from models.vggt.pose_encoding import decode_pose
from utils.cameras import Cameras, crop_intrinsics, resize_intrinsics
from utils.errors import UserError

_LOG = logging.getLogger(__name__)
_OPENGL = (1.0, -1.0, -1.0, 1.0)
_QUANTILES = (0.02, 0.98)
_NEAR_FACTOR, _FAR_FACTOR = 0.6, 1.8
"""Wide, since the depth of a small backbone is rough."""
_MAX_DEPTHS = 1 << 20
"""As many as a quantile is taken of."""


@dataclass(frozen=True)
class PhotoConfig:
    """All settings of ``python -m apps.estimate_cameras``."""

    photos: str
    """Folder of photos, or a video"""
    out: str | None = None
    """Folder for transforms.json; none: `estimated` in the folder of photos, or NAME_estimated
    beside a video"""
    method: Literal["vggt", "colmap"] = "vggt"
    """Who estimates: the backbone, or COLMAP through pycolmap, which is slower and, where it
    succeeds, more exact"""
    vggt_path: str = "ckpts/vggt-mini"
    """Folder of the backbone that estimates"""
    backbone_size: int | None = None
    """Longer side of what the backbone sees; none: the size that it was trained at"""
    max_views: int = 32
    """Photos, or frames of a video; of more so many are taken, spread evenly"""
    device: str = "auto"
    """Where to compute: auto, cpu, cuda"""
    overwrite: bool = False
    """Replace cameras that were estimated before"""

    def __post_init__(self) -> None:
        """Refuse what gives no cameras.

        Raises:
            ValueError: Names the value.
        """
        if self.max_views < 2:
            raise ValueError(f"max_views={self.max_views}: two views are the least")

    @property
    def folder(self) -> Path:
        """Where the result goes."""
        photos = Path(self.photos)
        if self.out is not None:
            return Path(self.out)
        if photos.suffix and not photos.is_dir():
            return photos.with_name(f"{photos.stem}_{ESTIMATED}")
        return photos / ESTIMATED


@dataclass(frozen=True)
class PhotoCameras:
    """What was estimated."""

    cameras: Cameras
    """Of the whole photos, each at its own size; one axis."""
    near_far: tuple[float, float]
    lenses: tuple[Lens, ...] = ()
    """With distortion, if that is known; one for each photo."""


def run_estimation(config: PhotoConfig) -> str:
    """Estimate cameras, write them, and say what to do with them.

    Raises:
        UserError: Photos or backbone are missing or damaged, the backbone's patches do not fill
            the size that it is to see, or there is a result already.
    """
    folder = config.folder
    path = folder / "transforms.json"
    if path.exists() and not config.overwrite:
        raise UserError(f"{path}: is there already; --overwrite true replaces it.")
    if config.method != "colmap" and config.backbone_size is not None:
        check_backbone_size(config.backbone_size, config.vggt_path)
    photos = collect_photos(Path(config.photos), folder, config.max_views)
    if config.method == "colmap":
        photos, estimated = _reconstructed(photos)
    else:
        network = VGGT.from_pretrained(config.vggt_path)
        backbone = FrozenVGGT(network, config.backbone_size).to(_device(config.device))
        estimated = estimate_cameras(photos, backbone)
    write_transforms(path, photos, estimated)
    sizes = {photo.size for photo in photos}
    advice = "" if len(sizes) == 1 else " --image_size HEIGHT WIDTH (their sizes differ)"
    return (
        f"cameras of {len(photos)} photos are in {path}. They are estimates: look at them with\n"
        f"python -m apps.inspect_data --dataset_name transforms --datadir {folder}{advice}"
    )


def estimate_cameras(photos: Sequence[UprightPhoto], backbone: FrozenVGGT) -> PhotoCameras:
    """Let a backbone look at all photos together.

    Raises:
        UserError: A photo is damaged, or the backbone's answer is not finite.
    """
    fitted = fit_photos(photos, backbone.long_side)
    device = next(backbone.network.parameters()).device
    features = backbone(fitted.images[None].to(device), ("camera", "depth"))
    if features.pose_enc is None or not features.pose_enc.isfinite().all():
        raise UserError("The backbone gave no finite cameras; are its weights trained?")
    seen = decode_pose(features.pose_enc[0].float().cpu(), *features.network_size)
    intrinsics = torch.stack(
        [
            _whole_photo(intrinsics, crop, features.network_size)
            for intrinsics, crop in zip(seen.intrinsics, fitted.crops, strict=True)
        ]
    )
    return PhotoCameras(Cameras(intrinsics, seen.c2w), _depth_range(features))


def write_transforms(path: Path, photos: Sequence[UprightPhoto], estimated: PhotoCameras) -> None:
    """Write ``transforms.json``, whole or not at all; photos are named from its folder.

    Raises:
        UserError: The file cannot be written.
    """
    cameras = estimated.cameras
    content = {
        "near": estimated.near_far[0],
        "far": estimated.near_far[1],
        "frames": [
            {
                **_frame(photo, cameras[place], path.parent),
                **(_distortion(estimated.lenses[place]) if estimated.lenses else {}),
            }
            for place, photo in enumerate(photos)
        ],
    }
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write the cameras ({error.strerror}).") from error


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


def _distortion(lens: Lens) -> dict[str, Any]:
    if lens.model == "fisheye":
        names, model = ("k1", "k2", "k3", "k4"), "OPENCV_FISHEYE"
    else:
        names, model = ("k1", "k2", "p1", "p2", "k3"), "OPENCV"
    return {"camera_model": model, **dict(zip(names, lens.coefficients, strict=True))}


def _reconstructed(
    photos: Sequence[UprightPhoto],
) -> tuple[list[UprightPhoto], PhotoCameras]:
    found = reconstruct(photos)
    intrinsics = torch.stack([lens.intrinsics for lens in found.lenses]).float()
    near, far = found.near_far.tolist()
    cameras = PhotoCameras(Cameras(intrinsics, found.c2w), (near, far), found.lenses)
    return list(found.photos), cameras


def _whole_photo(
    intrinsics: Float[Tensor, "3 3"], crop: tuple[int, int, int, int], seen: tuple[int, int]
) -> Float[Tensor, "3 3"]:
    """Bring intrinsics from the network's image to the photo that it is a part of."""
    top, left, rows, columns = crop
    own = resize_intrinsics(intrinsics, columns / seen[1], rows / seen[0])
    return crop_intrinsics(own, float(-left), float(-top))


def _depth_range(features: BackboneFeatures) -> tuple[float, float]:
    """Return near and far about the depths of which the backbone is more sure than of half."""
    assert features.depth is not None and features.depth_conf is not None
    depth, confidence = features.depth.float().cpu(), features.depth_conf.float().cpu()
    usable = depth.isfinite() & (depth > 0)
    sure = depth[usable & (confidence >= confidence.median())]
    if not len(sure):
        raise UserError("The backbone gave no depth; are its weights trained?")
    sure = sure[:: -(-len(sure) // _MAX_DEPTHS)]
    low, high = (sure.quantile(share).item() for share in _QUANTILES)
    return _NEAR_FACTOR * low, _FAR_FACTOR * high


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
