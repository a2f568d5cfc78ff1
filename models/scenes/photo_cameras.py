"""Estimation of cameras for photos without any, by structure from motion or by the backbone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from datasets.config import SceneConfig
from datasets.photos.estimated_cameras import EstimatedCameras, write_transforms
from datasets.photos.files import is_video
from datasets.photos.preparation import UprightPhoto, collect_photos, fit_photos
from datasets.photos.structure_from_motion import is_reliable, reconstruct_cameras
from datasets.scene_cache import CAMERAS_NAME, find_estimate, scene_cache
from models.vggt.backbone import BackboneFeatures, FrozenVGGT
from models.vggt.network import VGGT
from models.vggt.pose_encoding import decode_pose
from utils.cameras import Cameras, crop_intrinsics, resize_intrinsics
from utils.errors import UserError

_QUANTILES = (0.02, 0.98)
_NEAR_FACTOR, _FAR_FACTOR = 0.6, 1.8
"""Wide margins around the depth range, because a small backbone's depth is inaccurate."""
_MAX_DEPTHS = 1 << 20
"""Maximum number of depths from which quantiles are computed."""
_SECONDS_PER_PHOTO, _SECONDS_PER_PAIR = 1.0, 0.06
"""Time of structure from motion, measured on two CPU cores with photos of 960x721."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimation:
    """Settings of the camera estimation."""

    method: Literal["auto", "colmap", "vggt"] = "auto"
    """colmap: structure from motion; vggt: the backbone; auto: the backbone if structure from
    motion fails."""
    max_views: int = 40
    vggt_path: str = "ckpts/vggt-mini"
    backbone_size: int | None = None
    device: str = "cpu"
    """Device of the backbone."""

    def load_backbone(self) -> FrozenVGGT:
        """Load the backbone onto its device."""
        network = VGGT.from_pretrained(self.vggt_path)
        return FrozenVGGT(network, self.backbone_size).to(self.device)


def ensure_cameras(choice: SceneConfig, device: torch.device | str = "cpu") -> None:
    """Estimate the cameras of chosen scenes that are bare photos, unless already done."""
    if choice.format_name != "photos":
        return
    for source in choice.scene_folders():
        if find_estimate(source) is None and not (source / CAMERAS_NAME).is_file():
            estimate_and_save(source, scene_cache(source), Estimation(device=str(device)))


def estimate_and_save(source: Path, folder: Path, settings: Estimation) -> EstimatedCameras:
    """Estimate the cameras of photos or a video, write them to a folder, and log their quality.

    Rotated photos and frames of a video are also written there.
    """
    photos = collect_photos(source, folder, settings.max_views)
    pairs = len(photos) * (len(photos) - 1) / 2
    expected = _SECONDS_PER_PHOTO * len(photos) + _SECONDS_PER_PAIR * pairs
    message = "%s: estimating the cameras of %d photos, about %.0f s; they are kept in %s"
    _LOG.info(message, source, len(photos), expected, folder)
    estimate = estimate_cameras(photos, is_video(source), settings)
    write_transforms(folder / CAMERAS_NAME, estimate)
    _LOG.info("%s: %s", source, estimate.describe(len(photos)))
    return estimate


def estimate_cameras(
    photos: Sequence[UprightPhoto], in_order: bool, settings: Estimation
) -> EstimatedCameras:
    """Estimate the cameras of photos by structure from motion, or by the backbone if that fails.

    Bundle adjustment does not start from the backbone's cameras: with vggt-mini on the eleven
    photos of Sceaux, one camera then stayed 20 degrees off, and it took five times as long.
    """
    estimate = None if settings.method == "vggt" else reconstruct_cameras(photos, in_order)
    registered = 0 if estimate is None else len(estimate.photos)
    if estimate is not None and (settings.method == "colmap" or is_reliable(estimate, photos)):
        if registered < len(photos):
            message = "%d of %d photos could not be registered and are left out"
            _LOG.warning(message, len(photos) - registered, len(photos))
        return estimate
    if settings.method == "colmap":
        raise UserError(
            "COLMAP found no solution: the photos have too little texture or overlap. Take more, "
            "closer to each other, or use --method vggt."
        )
    if settings.method == "auto":
        _LOG.warning(
            "structure from motion registered %d of %d photos: they have too little texture or "
            "overlap. The backbone's cameras are used, which are inaccurate; take more photos, "
            "closer to each other",
            *(registered, len(photos)),
        )
    return predict_cameras(photos, settings.load_backbone())


def predict_cameras(photos: Sequence[UprightPhoto], backbone: FrozenVGGT) -> EstimatedCameras:
    """Estimate the cameras of all photos jointly by a backbone."""
    fitted = fit_photos(photos, backbone.long_side)
    device = next(backbone.network.parameters()).device
    features = backbone(fitted.images[None].to(device), ("camera", "depth"))
    if features.pose_enc is None or not features.pose_enc.isfinite().all():
        raise UserError("The backbone gave no finite cameras; are its weights trained?")
    height, width = features.network_size
    predicted = decode_pose(features.pose_enc[0].float().cpu(), height, width)
    # Undo the resizing and cropping of the network's images.
    intrinsics = []
    for matrix, (top, left, rows, columns) in zip(predicted.intrinsics, fitted.crops, strict=True):
        resized = resize_intrinsics(matrix, columns / width, rows / height)
        intrinsics.append(crop_intrinsics(resized, float(-left), float(-top)))
    return EstimatedCameras(
        photos=tuple(photos),
        cameras=Cameras(torch.stack(intrinsics), predicted.c2w),
        near_far=_depth_range(features),
        method="the backbone",
    )


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
