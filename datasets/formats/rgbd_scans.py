"""Scans of RGB-D cameras with a pose in a text file for each photo: ScanNet and 7-Scenes.

Poses are camera-to-world with OpenCV's axes; photos whose pose was lost (not finite) are left out.
Depth maps, which other lenses saw, are not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from datasets.formats.checks import finite_array
from datasets.formats.image_files import list_images
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import warn_once
from datasets.formats.research_scenes import TO_OPENGL, read_numbers, read_pinhole
from datasets.formats.transforms import scene_of_file
from datasets.formats.transforms_file import parse_transforms, pinhole_frame
from datasets.posed_scene import PosedScene
from utils.errors import UserError


def read_scannet(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scan of ScanNet (Dai et al., CVPR 2017) as its tools unpack it.

    ``color/0.jpg`` goes with ``pose/0.txt``; ``intrinsic/intrinsic_color.txt`` holds a matrix.
    """
    pairs = [
        (image, folder / "pose" / f"{image.stem}.txt") for image in list_images(folder / "color")
    ]
    return _read(folder, folder / "intrinsic" / "intrinsic_color.txt", pairs, options)


def read_seven_scenes(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a sequence of 7-Scenes (Shotton et al., CVPR 2013): ``frame-000000.color.png``, ...

    The data set says its intrinsics on its page; here ``camera-intrinsics.txt`` has to.
    """
    path = folder / "camera-intrinsics.txt"
    if not path.is_file():
        raise UserError(
            f"{path}: the file is missing. Write the intrinsics of the photos into it, three rows "
            "of three numbers: fx 0 cx, 0 fy cy, 0 0 1."
        )
    photos = [image for image in list_images(folder) if image.stem.endswith(".color")]
    poses = [image.with_name(image.stem.removesuffix(".color") + ".pose.txt") for image in photos]
    return _read(folder, path, zip(photos, poses, strict=True), options)


def _read(
    folder: Path, intrinsics: Path, pairs: Iterable[tuple[Path, Path]], options: ReadOptions
) -> PosedScene:
    pinhole, frames, lost = read_pinhole(intrinsics), [], 0
    for image, path in pairs:
        numbers = read_numbers(path)
        if any(word.lstrip("+-").lower() in ("inf", "nan") for word in numbers):
            lost += 1
            continue
        c2w = finite_array(numbers, (16,), path).reshape(4, 4) * TO_OPENGL
        frames.append(pinhole_frame(str(image.relative_to(folder)), c2w, pinhole))
    if lost:
        warn_once(f"{folder}: {lost} photos whose pose was lost are left out")
    source = folder / intrinsics.name
    return scene_of_file(source, parse_transforms({"frames": frames}, source), options)
