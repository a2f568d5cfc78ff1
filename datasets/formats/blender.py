"""The reader of NeRF's synthetic scenes: ``transforms_{train,val,test}.json`` and RGBA images.

The layout of Mildenhall et al., NeRF, ECCV 2020: OpenGL axes, one ``camera_angle_x``, images named
without their suffix. Blender's images cover whole pixels, so the principal point is the middle of
the image in the house convention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import PhotoReader, describe_folder, photo_scene
from datasets.formats.registry import SPLITS
from datasets.formats.transforms import frame_photos, read_transforms_file
from datasets.posed_scene import PosedScene
from utils.errors import UserError

_SPHERE_RADIUS = (3.5, 4.6)
"""NeRF's own scenes are seen from a sphere of radius 4.03; they are rendered from 2 to 6."""
_SPHERE_RANGE = (2.0, 6.0)


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene of NeRF's synthetic kind; pixels are read when asked for.

    Views count through training, validation and test images, each in the order of their numbers;
    ``splits`` of the result says which are which; all but ``transforms_train.json`` may be missing.
    Near and far are the file's, else 2 and 6 for NeRF's own scenes, else an estimate.
    """
    paths = {split: folder / f"transforms_{split}.json" for split in SPLITS}
    if not paths["train"].is_file():
        raise UserError(
            f"{paths['train']}: the file is missing. A scene of NeRF's synthetic kind holds "
            f"transforms_train.json; {describe_folder(folder)}."
        )
    files = {split: read_transforms_file(path) for split, path in paths.items() if path.is_file()}
    frames, splits = [], {}
    for split, (own, _) in files.items():
        splits[split] = tuple(range(len(frames), len(frames) + len(own)))
        frames += own
    photos = frame_photos(frames)
    for frame, photo in zip(frames, photos, strict=True):
        if photo.lens is not None and photo.lens.distorts:
            raise UserError(f"{frame.source}: rendered images have no distortion.")
    scene = photo_scene(
        folder.resolve().name,
        paths["train"],
        photos,
        [frame.c2w for frame in frames],
        options,
        files["train"][1] or _known_range([frame.c2w[:3, 3] for frame in frames]),
        view_names=tuple(frame.file_path for frame in frames),
        splits=splits,
    )
    reader = PhotoReader(tuple(photos), scene.image_size, options.background)
    return replace(scene, read_view=reader)


def _known_range(centers: Sequence[Float64[Tensor, " 3"]]) -> tuple[float, float] | None:
    radius = torch.stack(list(centers)).norm(dim=-1).median().item()
    return _SPHERE_RANGE if _SPHERE_RADIUS[0] <= radius <= _SPHERE_RADIUS[1] else None
