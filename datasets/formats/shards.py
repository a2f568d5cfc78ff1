"""Scenes as shards: one tar file each, whose views are read one by one, locally or from a URL.

``NAME/shard.tar`` holds each view as consecutive members ``00012.depth.tif``, ``00012.mask.png``
and one image a light, ``00012.0.png``: the layout of WebDataset, whose tools can read it
sequentially. ``NAME/shard.json`` holds the other fields of ``PosedScene`` and the offset of each
view in the tar file; a byte range that begins with a member is itself a tar file.
"""

from __future__ import annotations

import hashlib
import io
import json
import reprlib
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image

from datasets.formats.checks import check_pinhole, finite_array, is_pinhole, is_rigid
from datasets.formats.depth_range import checked_near_far
from datasets.formats.images.resizing import resize_mask, resize_nearest, resize_smooth
from datasets.formats.options import MAX_PIXELS, ReadOptions, Size
from datasets.formats.splits import SPLITS
from datasets.posed_scene import PosedScene, ReadView, ViewPixels
from datasets.shards.remote_folder import RangeFile, current_file
from utils.cameras import Cameras, LengthUnit, resize_intrinsics
from utils.errors import UserError
from utils.files import READ_ERRORS, atomic_write, read_json, whole_number, write_text

RECORD, ARCHIVE = "shard.json", "shard.tar"
_VERSION = 1
_DEPTH, _MASK = "depth.tif", "mask.png"
_FORMATS = {"tif": "TIFF", "png": "PNG", "jpg": "JPEG"}
_REMEDY = "Write it again with python -m apps.make_shards."
_OUT_REMEDY = "Choose another place with --out."
_LOSSLESS = 100
_MAX_BYTES_PER_PIXEL, _MAX_EXTRA_BYTES = 64, 1 << 16
"""Bound of the size of a view's members."""


@dataclass(frozen=True)
class _ShardReader:
    """Reads views under one light."""

    file: RangeFile
    offsets: dict[int, tuple[int, ...]]
    """For each view the offset of depth and mask, those of each light, and the end."""
    stored_size: Size
    size: Size
    light: int = 0

    def __call__(self, view: int) -> ViewPixels:
        """Read one view."""
        offsets = self.offsets[view]
        # Depth and mask precede the first light.
        ranges = [offsets[:3:2]]
        if self.light:
            ranges = [offsets[:2], offsets[self.light + 1 : self.light + 3]]
        pieces = [self.file.read(start, end) for start, end in ranges if end > start]
        depth, mask = np.zeros(self.stored_size, np.float32), np.ones(self.stored_size, np.bool_)
        try:
            members = {name: data for piece in pieces for name, data in _members(piece).items()}
            (image,) = (members[name] for name in members if name.startswith(f"{self.light}."))
            pixels = self._decode(image, "RGB").astype(np.float32) / np.float32(255)
            if _DEPTH in members:
                depth = self._decode(members[_DEPTH], "F")
            if _MASK in members:
                mask = self._decode(members[_MASK], "L") > 0
        except (tarfile.TarError, *READ_ERRORS) as error:
            raise UserError(
                f"{self.file.path}: view {view} is damaged, or belongs to another {RECORD} "
                f"({type(error).__name__}: {str(error)[:80]}). Copy both again. {_REMEDY}"
            ) from error
        return ViewPixels(
            image=resize_smooth(pixels, self.size),
            depth=resize_nearest(depth, self.size),
            mask=resize_mask(mask, self.size),
        )

    def _decode(self, data: bytes, mode: str) -> Shaped[np.ndarray, "height width *channels"]:
        with Image.open(io.BytesIO(data), formats=tuple(_FORMATS.values())) as image:
            if (image.height, image.width) != self.stored_size or image.mode != mode:
                raise ValueError(f"a map of {image.width}x{image.height}, {image.mode}")
            return np.array(image)


def _members(piece: bytes) -> dict[str, bytes]:
    members = {}
    with tarfile.open(fileobj=io.BytesIO(piece), mode="r:") as archive:
        for member in archive:
            # A sparse member declares more bytes than it holds.
            content = archive.extractfile(member) if member.size <= len(piece) else None
            if content is not None:
                members[member.name.partition(".")[2]] = content.read()
    return members


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read a shard, at the size that it was written with unless another is chosen."""
    path = current_file(folder / RECORD)
    record = read_json(path, "shard", _REMEDY)
    try:
        if record["version"] != _VERSION:
            raise ValueError(f"it is of version {str(record['version'])[:20]}")
        return _parse_record(record, folder, options)
    except READ_ERRORS as error:
        raise UserError(f"{path}: not a readable shard ({str(error)[:120]}). {_REMEDY}") from error


def _parse_record(record: dict[str, Any], folder: Path, options: ReadOptions) -> PosedScene:
    path = folder / RECORD
    views = _view_ids(record["view_ids"])
    if len(set(views)) != len(views):
        raise ValueError("two of its views have the same number")
    height, width = map(whole_number, record["size"])
    stored: Size = height, width
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"its views have {reprlib.repr(width)}x{reprlib.repr(height)} pixels")
    size = options.target_size(stored)
    unit, scale = LengthUnit(**record["unit"]), (size[1] / stored[1], size[0] / stored[0])
    cameras = _parse_cameras(record["cameras"], len(views), stored, path)
    lights = whole_number(record["lights"])
    offsets = {
        view: _checked_offsets(row, stored, max(lights, 1))
        for view, row in zip(views, record["offsets"], strict=True)
    }
    file = RangeFile(folder / ARCHIVE, str(record["sha256"])[:16])
    readers = [_ShardReader(file, offsets, stored, size, light) for light in range(max(lights, 1))]
    ranges = record["view_near_far"]
    if ranges is not None:
        ranges = torch.stack([checked_near_far(*pair, source=str(path)) for pair in ranges])
        if len(ranges) != len(views):
            raise ValueError(f"{len(ranges)} depth ranges of {len(views)} views")
    near_far = checked_near_far(*map(float, record["near_far"]), source=str(path))
    if options.near_far is not None:
        near_far, ranges = checked_near_far(*options.near_far, str(path)) / unit.factor, None
    return PosedScene(
        name=str(record["name"]),
        view_ids=views,
        view_names=tuple(map(str, record["view_names"])),
        cameras=Cameras(resize_intrinsics(cameras.intrinsics, *scale).float(), cameras.c2w.float()),
        near_far=near_far,
        image_size=size,
        read_view=readers[0],
        image_files=(path,),
        view_near_far=ranges,
        neighbours={
            view: _view_ids(others, views)
            for view, others in zip(views, record["ranked"], strict=True)
        },
        splits={
            split: _view_ids(record["splits"][split], views)
            for split in SPLITS
            if split in record["splits"]
        },
        lights=tuple(readers[:lights]),
        masks_for_tests_only=bool(record["masks_for_tests_only"]),
        unit=unit,
        origin=torch.from_numpy(finite_array(record["origin"], (3,), path)),
    )


def _parse_cameras(content: dict[str, Any], count: int, size: Size, path: Path) -> Cameras:
    intrinsics = torch.from_numpy(finite_array(content["intrinsics"], (count, 3, 3), path))
    c2w = torch.from_numpy(finite_array(content["c2w"], (count, 4, 4), path))
    if not is_rigid(c2w):
        raise ValueError("the pose of a view is not a rotation with a translation")
    if not is_pinhole(intrinsics):
        raise ValueError("the intrinsics of a view are not those of a pinhole camera")
    for matrix in intrinsics.tolist():
        center = matrix[0][2], matrix[1][2]
        check_pinhole((matrix[0][0], matrix[1][1]), center, size, str(path))
    return Cameras(intrinsics, c2w)


def _view_ids(listed: Sequence[object], views: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return numbers of views, which must be among ``views``."""
    ids = tuple(map(whole_number, listed))
    if views is not None and not set(ids) <= set(views):
        raise ValueError("it names views that it does not hold")
    return ids


def _checked_offsets(row: Sequence[int], size: Size, lights: int) -> tuple[int, ...]:
    max_bytes = _MAX_BYTES_PER_PIXEL * size[0] * size[1] + _MAX_EXTRA_BYTES
    offsets = tuple(map(whole_number, row))
    if len(offsets) != lights + 2 or offsets[0] < 0:
        raise ValueError(f"{len(offsets)} offsets of {lights} lights")
    if not all(0 <= end - start <= max_bytes for start, end in pairwise(offsets)):
        raise ValueError("the offsets of a view are too far apart, or not in order")
    return offsets


def write_scene(scene: PosedScene, folder: Path, quality: int, **notes: Any) -> None:  # noqa: ANN401
    """Write a scene as a shard, with 8-bit images: JPEG of ``quality``, or lossless PNG if 100.

    ``notes`` are added to the record. The record is written last and marks the shard as complete.
    """
    with atomic_write(folder / ARCHIVE, _OUT_REMEDY) as partial:
        with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
            offsets = [_add_view(archive, scene, view, quality) for view in scene.view_ids]
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = {
        "version": _VERSION,
        "name": scene.name,
        "sha256": digest,
        "view_ids": scene.view_ids,
        "view_names": scene.view_names,
        "size": scene.image_size,
        "lights": len(scene.lights),
        "offsets": offsets,
        "cameras": {name: values.tolist() for name, values in vars(scene.cameras).items()},
        "near_far": scene.near_far.tolist(),
        "view_near_far": None if scene.view_near_far is None else scene.view_near_far.tolist(),
        "ranked": [scene.neighbours.get(view, ()) for view in scene.view_ids],
        "splits": dict(scene.splits),
        "masks_for_tests_only": scene.masks_for_tests_only,
        "unit": asdict(scene.unit),
        "origin": scene.origin.tolist(),
        **notes,
    }
    write_text(folder / RECORD, json.dumps(record), _OUT_REMEDY)


def _add_view(archive: tarfile.TarFile, scene: PosedScene, view: int, quality: int) -> list[int]:
    """Write a view; return the offsets of depth and mask, of each light, and of the end."""
    pixels, offsets = scene.read_view(view), [archive.offset]
    if pixels.depth.any():
        _add(archive, f"{view:05d}.{_DEPTH}", pixels.depth, compression="tiff_adobe_deflate")
    if not pixels.mask.all():
        _add(archive, f"{view:05d}.{_MASK}", pixels.mask.astype(np.uint8) * np.uint8(255))
    offsets.append(archive.offset)
    lights: Sequence[ReadView] = scene.lights or (scene.read_view,)
    for light, read_view in enumerate(lights):
        image = np.rint(read_view(view).image * 255).clip(0, 255).astype(np.uint8)
        if quality == _LOSSLESS:
            _add(archive, f"{view:05d}.{light}.png", image)
        else:
            _add(archive, f"{view:05d}.{light}.jpg", image, quality=quality, subsampling=0)
        offsets.append(archive.offset)
    return offsets


def _add(
    archive: tarfile.TarFile,
    name: str,
    values: Shaped[np.ndarray, "height width *channels"],
    **options: Any,  # noqa: ANN401
) -> None:
    """Encode an image or map and append it; ``options`` are those of its encoder in Pillow."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, _FORMATS[name.rpartition(".")[2]], **options)
    member = tarfile.TarInfo(name)
    member.size = file.tell()
    file.seek(0)
    archive.addfile(member, file)
