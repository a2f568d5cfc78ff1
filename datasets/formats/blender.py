"""Reader of NeRF's synthetic scenes: ``transforms_{train,val,test}.json`` and RGBA images.

The layout of Mildenhall et al., NeRF, ECCV 2020: OpenGL axes, one ``camera_angle_x``, image names
without suffix. The principal point is the image centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.formats.images.image_files import describe_folder
from datasets.formats.images.photos import photo_scene
from datasets.formats.messages import warn_once
from datasets.formats.options import ReadOptions
from datasets.formats.splits import SPLITS
from datasets.formats.transforms import build_photos, find_images
from datasets.formats.transforms_file import read_transforms_file
from datasets.posed_scene import PosedScene
from utils.errors import UserError

_SPHERE_RADIUS = (3.5, 4.6)
"""Range of the camera distances of NeRF's own scenes, which is 4.03."""
_SPHERE_NEAR_FAR = (2.0, 6.0)


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene; views are numbered through training, validation and test images.

    Only ``transforms_train.json`` and its images are required. Near and far are the file's, else 2
    and 6 for NeRF's own scenes, else measured.
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
    all_frames = [frame for file in files.values() for frame in file.frames]
    frames, images, options = find_images(all_frames, options)
    splits = {
        split: tuple(view for view, frame in enumerate(frames) if frame.file == paths[split])
        for split in files
    }
    if not splits["train"]:
        raise UserError(f"{paths['train']}: none of its images exists. Restore them.")
    photos = build_photos(frames, images)
    for frame, photo in zip(frames, photos, strict=True):
        if photo.lens is not None and photo.lens.distorts:
            raise UserError(
                f"{frame.source}: rendered images have no distortion; remove its coefficients."
            )
    return photo_scene(
        folder.resolve().name,
        paths["train"],
        photos,
        [frame.c2w for frame in frames],
        options,
        files["train"].near_far or _sphere_near_far([frame.c2w[:3, 3] for frame in frames]),
        view_names=tuple(frame.file_path for frame in frames),
        splits={split: views for split, views in splits.items() if views},
    )


def _sphere_near_far(centers: Sequence[Float64[Tensor, " 3"]]) -> tuple[float, float] | None:
    radius = torch.stack(list(centers)).norm(dim=-1).median().item()
    return _SPHERE_NEAR_FAR if _SPHERE_RADIUS[0] <= radius <= _SPHERE_RADIUS[1] else None
