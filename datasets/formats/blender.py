"""The reader of NeRF's synthetic scenes: ``transforms_{train,val,test}.json`` and RGBA images.

The layout of Mildenhall et al., NeRF, ECCV 2020: OpenGL axes, one ``camera_angle_x``, images named
without their suffix. Blender's images cover whole pixels, so the principal point is the middle of
the image in the house convention.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.formats.image_files import describe_folder
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import photo_scene, warn_once
from datasets.formats.scene_lists import SPLITS
from datasets.formats.transforms import find_images, frame_photos
from datasets.formats.transforms_file import read_transforms_file
from datasets.posed_scene import PosedScene
from utils.errors import UserError

_SPHERE_RADIUS = (3.5, 4.6)
"""NeRF's own scenes are seen from a sphere of radius 4.03; they are rendered from 2 to 6."""
_SPHERE_RANGE = (2.0, 6.0)


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene of NeRF's synthetic kind; pixels are read when asked for.

    Views count through training, validation and test images, each in the order of their numbers;
    ``splits`` of the result says which are which; all but ``transforms_train.json`` and its images
    may be missing or empty.
    Near and far are the file's, else 2 and 6 for NeRF's own scenes, else an estimate.
    """
    paths = {split: folder / f"transforms_{split}.json" for split in SPLITS}
    if not paths["train"].is_file():
        raise UserError(
            f"{paths['train']}: the file is missing. A scene of NeRF's synthetic kind holds "
            f"transforms_train.json; {describe_folder(folder)}."
        )
    files = {
        split: read_transforms_file(path, may_be_empty=split != "train")
        for split, path in paths.items()
        if path.is_file()
    }
    for split in files:
        if not files[split].frames:
            warn_once(f"{paths[split]}: holds no frames; the scene is read without {split} views")
    named = [frame for file in files.values() for frame in file.frames]
    frames, images, options = find_images(named, options)
    splits = {
        split: tuple(view for view, frame in enumerate(frames) if frame.file == paths[split])
        for split in files
    }
    if not splits["train"]:
        raise UserError(f"{paths['train']}: none of its images is there. Restore them.")
    photos = frame_photos(frames, images)
    for frame, photo in zip(frames, photos, strict=True):
        if photo.lens is not None and photo.lens.distorts:
            raise UserError(f"{frame.source}: rendered images have no distortion.")
    return photo_scene(
        folder.resolve().name,
        paths["train"],
        photos,
        [frame.c2w for frame in frames],
        options,
        files["train"].near_far or _known_range([frame.c2w[:3, 3] for frame in frames]),
        view_names=tuple(frame.file_path for frame in frames),
        splits={split: views for split, views in splits.items() if views},
    )


def _known_range(centers: Sequence[Float64[Tensor, " 3"]]) -> tuple[float, float] | None:
    radius = torch.stack(list(centers)).norm(dim=-1).median().item()
    return _SPHERE_RANGE if _SPHERE_RADIUS[0] <= radius <= _SPHERE_RADIUS[1] else None
