"""Estimate the cameras of photos that have none, with VGGT or COLMAP.

For example: python -m apps.estimate_cameras --photos data/my_photos
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from utils.config import command
from utils.settings import Alias, Settings, Within


@dataclass(frozen=True)
class PhotoConfig(Settings):
    """All settings of ``python -m apps.estimate_cameras``."""

    essential_flags: ClassVar = {
        "photos": ("photos", "max_views", "out", "overwrite"),
        "method": ("method", "vggt_path", "backbone_size", "device"),
    }

    photos: Annotated[str, Alias(("datadir",))]
    """folder of photos, or a video"""
    out: str | None = None
    """folder for transforms.json; none: `estimated` in the folder of photos, or NAME_estimated
    beside a video, where all commands look for it; ~/.cache/vggt-nerf if these are read-only"""
    method: Literal["auto", "colmap", "vggt"] = "auto"
    """colmap: structure from motion; vggt: the backbone alone, which is less accurate; auto: the
    backbone if structure from motion fails"""
    vggt_path: str = "ckpts/vggt-mini"
    """folder of the backbone"""
    backbone_size: int | None = None
    """longer side of the backbone's input in pixels; none: as in its training"""
    max_views: Annotated[int, Within(2)] = 40
    """largest number of photos or video frames, spread evenly over all"""
    device: str = "auto"
    """device of the backbone: auto, gpu or cpu"""
    overwrite: bool = False
    """replace existing estimates"""


def run_estimation(config: PhotoConfig) -> str:
    """Estimate and write cameras; return a summary with the command that checks them."""
    from datasets.scene_cache import CAMERAS_NAME, scene_cache
    from models.scenes.photo_cameras import Estimation, estimate_and_save
    from models.vggt.backbone import check_backbone_size
    from utils.devices import choose_devices
    from utils.errors import UserError
    from utils.files import check_output_folder, shell_command

    source = Path(config.photos)
    folder = scene_cache(source) if config.out is None else Path(config.out)
    path = folder / CAMERAS_NAME
    if path.exists() and not config.overwrite:
        raise UserError(f"{path}: exists already; --overwrite true replaces it.")
    check_output_folder(folder, "--out")
    if config.backbone_size is not None:
        check_backbone_size(config.backbone_size, config.vggt_path)
    settings = Estimation(
        config.method,
        config.max_views,
        config.vggt_path,
        config.backbone_size,
        str(choose_devices(config.device)[0]),
    )
    photos = estimate_and_save(source, folder, settings).photos
    sizes = {photo.size for photo in photos}
    height, width = min(sizes)
    flags: list[object] = ["--dataset_name", "transforms", "--datadir", folder]
    if len(sizes) > 1:
        flags += ["--image_size", height, width]
    inspection = shell_command("-m apps.inspect_data", *flags)
    return (
        f"cameras of {len(photos)} photos are in {path}. They are estimates: check them with"
        f"\n{inspection}"
    )


main = command(PhotoConfig, run_estimation, __doc__)

if __name__ == "__main__":
    sys.exit(main())
