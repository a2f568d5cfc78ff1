"""Reader of DTU: one scan of a folder in MVSNet's training layout (see data/README.md).

* cameras: ``Cameras/train/00000000_cam.txt``, else ``Cameras/00000000_cam.txt``, in millimetres
* images: ``Rectified/scan1_train/rect_001_3_r5000.png``, else ``Rectified/scan1/``; view 0, light 3
* depth: ``Depths_raw/scan1/depth_map_0000.pfm``, else ``Depths/scan1/``, ``Depths/scan1_train/``
* masks: ``depth_visual_0000.png`` beside the depth map

View ids count from 0, the names of image files from 1. In the calibration, pixel centres of the
1600x1200 photograph are at integers. Images of 640x512 are halved photographs, cropped by 80
columns and 44 rows; their camera files hold the intrinsics ``(K / 2 - crop) / 4`` of an image a
quarter as large, without the shift of half a pixel. Both conventions are converted here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

from datasets.formats.checks import MAX_CENTER_DEVIATION, center_deviation, check_pinhole
from datasets.formats.depth_range import checked_near_far
from datasets.formats.images.decoding import read_image, read_image_size, read_mask
from datasets.formats.images.depth_maps import read_pfm
from datasets.formats.images.image_files import describe_folder
from datasets.formats.images.resizing import resize_nearest, resize_smooth
from datasets.formats.messages import join_names, warn_once
from datasets.formats.mvsnet_files import (
    CAMERA_NAME,
    CameraFile,
    files_by_view,
    matching_files,
    read_camera_file,
    read_pairs,
)
from datasets.formats.options import ReadOptions, Size
from datasets.formats.registry import DEFAULT_LISTS, LAYOUT_HELP
from datasets.posed_scene import PosedScene, ViewPixels
from datasets.view_selection import rank_by_distance
from utils.cameras import (
    Cameras,
    LengthUnit,
    crop_intrinsics,
    invert_rigid,
    recentred,
    resize_intrinsics,
)
from utils.errors import UserError

UNIT = LengthUnit("mm", 200.0)
"""Files are in millimetres; a scene unit is 200 of them."""
FAR_MARGIN = 1.5
"""Factor on the far depth of the files, which covers the object but not the table behind it."""
_PHOTO_SIZE: Size = (1200, 1600)
"""Height and width of the original photographs."""
_CROPPED_SIZE: Size = (512, 640)
"""Height and width after MVSNet's halving and cropping."""
_CROP_TOP, _CROP_LEFT = 44, 80
_TEST_LIGHT = 3
"""Light of the test images in the literature."""
_MILLIMETRE = 1 / UNIT.factor

_IMAGE_NAME = re.compile(r"rect_(\d{3,4})_(\d+)_r\d+\.(?:png|jpg)", re.IGNORECASE)
_DEPTH_NAME = re.compile(r"depth_map_(\d{4})\.pfm")
_MASK_NAME = re.compile(r"depth_visual_(\d{4})\.png")


@dataclass(frozen=True)
class _ScanReader:
    """Reads the views of a scan under one light."""

    images: Mapping[int, Path]
    depths: Mapping[int, Path]
    masks: Mapping[int, Path]
    image_size: Size
    """Height and width of all image files, after cropping."""
    size: Size

    def __call__(self, view: int) -> ViewPixels:
        """Read one view; without a mask file, pixels with true depth are valid, as in MVSNeRF."""
        depth, mask = np.zeros(self.size, np.float32), np.ones(self.size, np.bool_)
        if view in self.depths:
            path = self.depths[view]
            depth = self._resized_map(read_pfm(path), path)
            depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
            mask = depth > 0
        if view in self.masks:
            mask = self._resized_map(read_mask(self.masks[view]), self.masks[view])
        return ViewPixels(self._image(self.images[view]), depth * np.float32(_MILLIMETRE), mask)

    def _image(self, path: Path) -> Float[np.ndarray, "height width 3"]:
        height, width = read_image_size(path)
        if _cropped_size((height, width)) != self.image_size:
            raise UserError(
                f"{path}: the image is {width}x{height}, but the scan has "
                f"{self.image_size[1]}x{self.image_size[0]} images."
            )
        image = read_image(path)
        if (height, width) == _PHOTO_SIZE:
            image = _cropped(resize_smooth(image, (height // 2, width // 2)))
        return resize_smooth(image, self.size)

    def _resized_map(
        self, values: Shaped[np.ndarray, "height width"], path: Path
    ) -> Shaped[np.ndarray, "new_height new_width"]:
        """Resize a map of the size of the photographs, the images or an even fraction of these."""
        height, width = values.shape
        rows, columns = self.image_size
        if (height, width) == _PHOTO_SIZE and self.image_size == _CROPPED_SIZE:
            values = _cropped(resize_nearest(values, (height // 2, width // 2), True))
        elif rows % height or columns % width or rows // height != columns // width:
            raise UserError(
                f"{path}: the map is {width}x{height}, which does not go with {columns}x{rows} "
                "images."
            )
        return resize_nearest(resize_nearest(values, self.image_size, True), self.size, True)


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a scan, named by the data folder and its own name as in ``data/dtu/scan2``."""
    root, scan = folder.parent, folder.name
    cameras = {view: read_camera_file(path) for view, path in _find_cameras(root).items()}
    image_folder, images = _find_images(root, scan)
    views, lights = _choose_views(image_folder, images, cameras.keys())
    image_size = _cropped_size(read_image_size(images[lights[0]][views[0]]))
    size = options.target_size(image_size)
    depth_folder = _find_depth_folder(root, scan)
    depths, masks = (files_by_view(depth_folder, name) for name in (_DEPTH_NAME, _MASK_NAME))
    readers = tuple(_ScanReader(images[light], depths, {}, image_size, size) for light in lights)
    files = [cameras[view] for view in views]
    c2w = torch.stack([invert_rigid(file.w2c) for file in files])
    scale = size[1] / image_size[1], size[0] / image_size[0]
    intrinsics = [resize_intrinsics(image_intrinsics(file, image_size), *scale) for file in files]
    recentred_c2w, origin = recentred(c2w)
    return PosedScene(
        name=scan,
        view_ids=views,
        view_names=tuple(images[lights[0]][view].name for view in views),
        cameras=Cameras(torch.stack(intrinsics).float(), recentred_c2w).scaled_world(_MILLIMETRE),
        near_far=_near_far(list(cameras.values()), options, folder),
        image_size=size,
        read_view=replace(readers[0], masks=masks),
        image_files=tuple(images[light][view] for light in lights for view in views),
        lights=readers,
        neighbours=_neighbours(root, dict(zip(views, c2w[:, :3, 3], strict=True))),
        # Training counts every pixel, or the model could fill the black background with anything.
        masks_for_tests_only=True,
        unit=UNIT,
        origin=origin * _MILLIMETRE,
    )


def image_intrinsics(camera: CameraFile, size: Size) -> Float64[Tensor, "3 3"]:
    """Convert intrinsics to an image of ``size``, in the convention of ``utils.cameras``.

    The principal point tells which size the file refers to: a quarter of the image, the image
    itself or, for 640x512 images, the photograph from which they were cropped.
    """
    height, width = size
    sizes = {"quarter": (height / 4, width / 4), "image": (height, width)}
    if size == _CROPPED_SIZE:
        sizes["photo"] = _PHOTO_SIZE
    center = camera.intrinsics[0, 2].item(), camera.intrinsics[1, 2].item()
    deviations = {kind: center_deviation(center, sides) for kind, sides in sizes.items()}
    kind = min(deviations, key=lambda name: deviations[name])
    if deviations[kind] > MAX_CENTER_DEVIATION:
        tried = ", ".join(f"{columns:g}x{rows:g}" for rows, columns in sizes.values())
        raise UserError(
            f"{camera.path}: the principal point ({center[0]:g}, {center[1]:g}) is not near the "
            f"centre of an image of {tried}, the sizes that go with {width}x{height} images. "
            "Use the Cameras/ folder that belongs to these images."
        )
    intrinsics = _converted(camera, kind)
    (focal_x, _, column), (_, focal_y, row) = intrinsics[:2].tolist()
    check_pinhole((focal_x, focal_y), (column, row), size, str(camera.path))
    return intrinsics


def _converted(camera: CameraFile, kind: str) -> Float64[Tensor, "3 3"]:
    if kind == "quarter":
        return crop_intrinsics(resize_intrinsics(camera.intrinsics, 4.0, 4.0), -0.25, -0.25)
    centered = crop_intrinsics(camera.intrinsics, -0.5, -0.5)
    if kind == "image":
        return centered
    halved = resize_intrinsics(centered, 0.5, 0.5)
    return crop_intrinsics(halved, float(_CROP_LEFT), float(_CROP_TOP))


def _find_cameras(root: Path) -> dict[int, Path]:
    for folder in (root / "Cameras" / "train", root / "Cameras"):
        if files := files_by_view(folder, CAMERA_NAME):
            return dict(sorted(files.items()))
    raise UserError(
        f"{root}: neither Cameras/train/ nor Cameras/ holds 00000000_cam.txt or the like; "
        f"{describe_folder(root)}. {LAYOUT_HELP}"
    )


def _find_images(root: Path, scan: str) -> tuple[Path, dict[int, dict[int, Path]]]:
    """Return the image folder, and the images by light and view."""
    for folder in (root / "Rectified" / f"{scan}_train", root / "Rectified" / scan):
        images: dict[int, dict[int, Path]] = {}
        for match, path in matching_files(folder, _IMAGE_NAME):
            images.setdefault(int(match[2]), {})[int(match[1]) - 1] = path
        if images:
            return folder, images
    raise UserError(
        f"{root}: has cameras, but no images of {scan!r}: no Rectified/{scan}_train/"
        f"rect_001_3_r5000.png and no Rectified/{scan}/. {LAYOUT_HELP}"
    )


def _find_depth_folder(root: Path, scan: str) -> Path:
    names = (f"Depths_raw/{scan}", f"Depths/{scan}", f"Depths/{scan}_train")
    folders = [root / name for name in names]
    return next((folder for folder in folders if files_by_view(folder, _DEPTH_NAME)), folders[0])


def _choose_views(
    image_folder: Path, images: Mapping[int, Mapping[int, Path]], cameras: Collection[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the views with image and camera, and the lights that show them all, test light first.

    Without images of the test light, the first light is the one with the most views.
    """
    views_of = {light: set(files) & set(cameras) for light, files in sorted(images.items())}
    reference = max(views_of, key=lambda light: len(views_of[light]))
    if views_of.get(_TEST_LIGHT):
        reference = _TEST_LIGHT
    views = views_of[reference]
    if without_camera := sorted(set(images[reference]) - set(cameras)):
        warn_once(
            f"{image_folder.parents[1]}: images without a camera file are not used; for example, "
            f"Cameras/ has no {without_camera[0]:08d}_cam.txt"
        )
    if without_image := sorted(set(cameras) - views):
        name = f"rect_{without_image[0] + 1:03d}_{reference}_r5000.png"
        warn_once(
            f"{image_folder}: {len(views)} of {len(cameras)} views have image and camera; for "
            f"example, there is no {name}"
        )
    if partial := [str(light) for light, own in views_of.items() if not own >= views]:
        warn_once(
            f"{image_folder}: lights that lack some views are not used: {join_names(partial)}"
        )
    if not views:
        raise UserError(f"{image_folder}: no image has a camera file. {LAYOUT_HELP}")
    others = [light for light, own in views_of.items() if light != reference and own >= views]
    return tuple(sorted(views)), (reference, *others)


def _neighbours(
    root: Path, centers: Mapping[int, Float64[Tensor, " 3"]]
) -> dict[int, Sequence[int]]:
    own = root / "Cameras" / "pair.txt"
    pairs = read_pairs(own if own.is_file() else DEFAULT_LISTS / "dtu_pairs.txt")
    ranked = {}
    for view in centers:
        listed = [other for other in pairs.get(view, ()) if other in centers and other != view]
        by_distance = rank_by_distance(view, list(centers), centers)
        ranked[view] = list(dict.fromkeys([*listed, *by_distance]))
    return ranked


def _near_far(
    cameras: Sequence[CameraFile], options: ReadOptions, folder: Path
) -> Float[Tensor, " 2"]:
    if options.near_far is not None:
        return checked_near_far(*options.near_far, f"{folder}, with the given range") * _MILLIMETRE
    near, far = min(file.near for file in cameras), max(file.far for file in cameras)
    return torch.tensor([near, FAR_MARGIN * far]) * _MILLIMETRE


def _cropped_size(file_size: Size) -> Size:
    return _CROPPED_SIZE if file_size == _PHOTO_SIZE else file_size


def _cropped(image: Shaped[np.ndarray, "height width ..."]) -> Shaped[np.ndarray, "512 640 ..."]:
    height, width = _CROPPED_SIZE
    return image[_CROP_TOP : _CROP_TOP + height, _CROP_LEFT : _CROP_LEFT + width]
