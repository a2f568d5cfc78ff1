"""The reader of NeRF's synthetic scenes: ``transforms_{train,val,test}.json`` and RGBA images.

The layout of Mildenhall et al., NeRF, ECCV 2020: OpenGL axes, one ``camera_angle_x``, images named
without their suffix. Blender's images cover whole pixels, so the principal point is the middle of
the image in the house convention.
"""

from __future__ import annotations

from pathlib import Path

from datasets.formats.checks import choose_near_far
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import (
    Photo,
    PhotoReader,
    by_number,
    list_folder,
    read_sizes,
    reading_size,
    resized_cameras,
)
from datasets.formats.transforms_file import (
    TransformsFile,
    find_frame_images,
    frame_lens,
    read_transforms_file,
)
from datasets.posed_scene import PosedScene
from datasets.scene_lists import SPLITS, Split
from utils.cameras import Cameras
from utils.errors import UserError

_SPHERE_RADIUS = (3.5, 4.6)
"""NeRF's own scenes are seen from a sphere of radius 4.03; they are rendered from 2 to 6."""
_SPHERE_RANGE = (2.0, 6.0)


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scene of NeRF's synthetic kind; pixels are read when asked for.

    Views count through training, validation and test images, each in the order of their numbers;
    ``splits`` of the result says which are which.

    Args:
        folder: Holds ``transforms_train.json``; the other two may be missing.
        options: Without a range it is 2 and 6 for NeRF's own scenes, else the file's ``near`` and
            ``far``, else an estimate.

    Raises:
        UserError: A file is missing or malformed, or images and cameras do not go together.
    """
    files = {split: file for split in SPLITS if (file := _read_split(folder, split))}
    frames, splits = [], {}
    for split, file in files.items():
        own = sorted(file.frames, key=lambda frame: by_number(frame.file_path))
        splits[split] = tuple(range(len(frames), len(frames) + len(own)))
        frames += own
    images = find_frame_images(frames)
    sizes = read_sizes(images)
    size = reading_size(images, sizes, options)
    lenses = [frame_lens(frame, sides) for frame, sides in zip(frames, sizes, strict=True)]
    for frame, lens in zip(frames, lenses, strict=True):
        if lens.distorts:
            raise UserError(f"{frame.source}: rendered images have no distortion.")
    cameras = resized_cameras(
        [lens.intrinsics for lens in lenses], [frame.c2w for frame in frames], sizes, size
    )
    train = files["train"]
    return PosedScene(
        name=folder.resolve().name,
        view_ids=tuple(range(len(frames))),
        view_names=tuple(frame.file_path for frame in frames),
        cameras=cameras,
        near_far=choose_near_far(
            options.near_far, train.near_far or _known_range(cameras), cameras, str(train.path)
        ),
        image_size=size,
        read_view=PhotoReader(tuple(map(Photo, images, sizes)), size, options.background),
        splits=splits,
    )


def _read_split(root: Path, split: Split) -> TransformsFile | None:
    path = root / f"transforms_{split}.json"
    if path.is_file():
        return read_transforms_file(path)
    if split != "train":
        return None
    found = ", ".join(entry.name for entry in list_folder(root)[:8]) or "nothing"
    raise UserError(
        f"{path}: the file is missing. A scene of NeRF's synthetic kind holds "
        f"transforms_train.json; this folder holds {found}."
    )


def _known_range(cameras: Cameras) -> tuple[float, float] | None:
    radius = cameras.centers.norm(dim=-1).median().item()
    return _SPHERE_RANGE if _SPHERE_RADIUS[0] <= radius <= _SPHERE_RADIUS[1] else None
