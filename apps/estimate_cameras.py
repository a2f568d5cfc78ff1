"""Estimate the cameras of photos that have none, with VGGT or COLMAP.

For example: python -m apps.estimate_cameras --photos data/my_photos
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from utils.config import command
from utils.settings import Alias, Settings, Within


@dataclass(frozen=True)
class PhotoConfig(Settings):
    """All settings of ``python -m apps.estimate_cameras``."""

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "photos": ("photos", "max_views", "out", "overwrite"),
        "method": ("method", "vggt_path", "backbone_size", "device"),
    }

    photos: Annotated[str, Alias(("datadir",))]
    """folder of photos, or a video"""
    out: str | None = None
    """folder for transforms.json; none: `estimated` in the folder of photos, or NAME_estimated
    beside a video; results/NAME_estimated if these cannot be written"""
    method: Literal["vggt", "colmap"] = "vggt"
    """colmap needs the package pycolmap; it is slower and, where it succeeds, more exact"""
    vggt_path: str = "ckpts/vggt-mini"
    """folder of the backbone"""
    backbone_size: int | None = None
    """longer side of the backbone's input; none: the size at which it was trained"""
    max_views: Annotated[int, Within(2)] = 32
    """photos, or frames of a video; of more so many are taken, spread evenly"""
    device: str = "auto"
    """where to compute: auto, gpu or cpu"""
    overwrite: bool = False
    """replace cameras that were estimated before"""


def run_estimation(config: PhotoConfig) -> str:
    """Estimate cameras, write them, and say what to do with them."""
    from apps.photo_cameras import estimate_cameras, reconstruct_cameras, write_transforms
    from datasets.photo_folder import collect_photos, estimates_folder
    from models.vggt.backbone import FrozenVGGT, check_backbone_size
    from models.vggt.network import VGGT
    from utils.devices import choose_devices
    from utils.errors import UserError
    from utils.files import check_output_folder

    source = Path(config.photos)
    folder = estimates_folder(source) if config.out is None else Path(config.out)
    path = folder / "transforms.json"
    if path.exists() and not config.overwrite:
        raise UserError(f"{path}: is there already; --overwrite true replaces it.")
    check_output_folder(folder, "--out")
    if config.method == "vggt" and config.backbone_size is not None:
        check_backbone_size(config.backbone_size, config.vggt_path)
    photos = collect_photos(source, folder, config.max_views)
    if config.method == "colmap":
        photos, estimated = reconstruct_cameras(photos)
    else:
        (device,) = choose_devices(config.device)
        backbone = FrozenVGGT(VGGT.from_pretrained(config.vggt_path), config.backbone_size)
        estimated = estimate_cameras(photos, backbone.to(device))
    write_transforms(path, photos, estimated)
    height, width = min(photo.size for photo in photos)
    differ = len({photo.size for photo in photos}) > 1
    advice = f" --image_size {height} {width}" if differ else ""
    return (
        f"cameras of {len(photos)} photos are in {path}. They are estimates: check them with\n"
        f"python -m apps.inspect_data --dataset_name transforms --datadir {folder}{advice}"
    )


main = command(PhotoConfig, run_estimation, __doc__)

if __name__ == "__main__":
    sys.exit(main())
