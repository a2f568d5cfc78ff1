"""Scenes as shards: one tar file each, of which views are read one by one, wherever it lies.

``NAME/shard.tar`` holds a view as consecutive members ``00012.depth.tif``, ``00012.mask.png`` and
an image for each light, ``00012.0.png``: the layout of WebDataset, whose tools read it from end to
end. ``NAME/shard.json`` holds all else that a ``PosedScene`` does, and where in the tar file each
view lies: a piece of a tar file that begins with a member is one itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from PIL import Image

from datasets.formats.checks import finite_array, given_near_far
from datasets.formats.images import resize_nearest, resize_smooth
from datasets.formats.masks import resized_mask
from datasets.formats.options import ReadOptions, Size
from datasets.posed_scene import PosedScene, ReadView, ViewPixels
from datasets.shards.remote_folder import RangeFile, current_file
from utils.cameras import Cameras, LengthUnit, resize_intrinsics
from utils.errors import UserError
from utils.files import READ_ERRORS, atomic_write, read_json, write_text

RECORD, ARCHIVE = "shard.json", "shard.tar"
_VERSION = 1
_DEPTH, _MASK = "depth.tif", "mask.png"
_AGAIN = "Write it again with python -m apps.make_shards."
_BYTES_PER_PIXEL, _MORE_BYTES = 64, 1 << 16
"""More than any piece of a view takes."""


@dataclass(frozen=True)
class ShardReader:
    """Reads views under one light."""

    file: RangeFile
    offsets: dict[int, tuple[int, ...]]
    """Of each view: where depth and mask begin, where each light does, and where the last ends."""
    stored: Size
    size: Size
    light: int = 0

    def __call__(self, view: int) -> ViewPixels:
        """Read one view."""
        at = self.offsets[view]
        # Depth and mask lie before the first light.
        pieces = [at[:3:2]] if not self.light else [at[:2], at[self.light + 1 : self.light + 3]]
        found: dict[str, bytes] = {}
        for start, end in pieces:
            found |= self._members(self.file.read(start, end)) if end > start else {}
        depth, mask = np.zeros(self.stored, np.float32), np.ones(self.stored, np.bool_)
        try:
            (image,) = (found[name] for name in found if name.startswith(f"{self.light}."))
            pixels = self._decoded(image, "RGB").astype(np.float32) / np.float32(255)
            if _DEPTH in found:
                depth = self._decoded(found[_DEPTH], "F")
            if _MASK in found:
                mask = self._decoded(found[_MASK], "L") > 0
        except READ_ERRORS as error:
            raise self._damaged(view, error) from error
        return ViewPixels(
            image=resize_smooth(pixels, self.size),
            depth=resize_nearest(depth, self.size),
            mask=resized_mask(mask, self.size),
        )

    def _members(self, piece: bytes) -> dict[str, bytes]:
        try:
            return dict(_members(piece))
        except (tarfile.TarError, *READ_ERRORS) as error:
            raise self._damaged(None, error) from error

    def _decoded(self, data: bytes, mode: str) -> Shaped[np.ndarray, "height width *channels"]:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "TIFF")) as image:
            if (image.height, image.width) != self.stored or image.mode != mode:
                raise ValueError(f"a map of {image.width}x{image.height}, {image.mode}")
            return np.array(image)

    def _damaged(self, view: int | None, error: Exception) -> UserError:
        what = "a piece" if view is None else f"view {view}"
        return UserError(
            f"{self.file.path}: {what} is damaged, or belongs to another {RECORD} "
            f"({type(error).__name__}: {str(error)[:80]}). Copy both again. {_AGAIN}"
        )


def _members(piece: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(piece), mode="r:") as archive:
        for member in archive:
            # A sparse file would declare more than it holds.
            content = archive.extractfile(member) if member.size <= len(piece) else None
            if content is not None:
                yield member.name.partition(".")[2], content.read()


def read_scene(folder: Path, options: ReadOptions) -> PosedScene:
    """Read what a shard holds, at the size that it was written with unless another is chosen."""
    path = current_file(folder / RECORD)
    record = read_json(path, "shard", _AGAIN)
    try:
        if record["version"] != _VERSION:
            raise ValueError(f"it is of version {str(record['version'])[:20]}")
        return _scene_of(record, folder, options)
    except UserError:
        raise
    except READ_ERRORS as error:
        raise UserError(f"{path}: not a readable shard ({str(error)[:120]}). {_AGAIN}") from error


def _scene_of(record: dict[str, Any], folder: Path, options: ReadOptions) -> PosedScene:
    path = folder / RECORD
    views = tuple(int(view) for view in record["view_ids"])
    stored: Size = (int(record["size"][0]), int(record["size"][1]))
    size = options.target_size(stored)
    cameras, unit = record["cameras"], LengthUnit(**record["unit"])
    scale = size[1] / stored[1], size[0] / stored[0]
    intrinsics = torch.from_numpy(finite_array(cameras["intrinsics"], (len(views), 3, 3), path))
    c2w = torch.from_numpy(finite_array(cameras["c2w"], (len(views), 4, 4), path))
    lights = int(record["lights"])
    offsets = {
        view: _checked_offsets(row, stored, max(lights, 1))
        for view, row in zip(views, record["offsets"], strict=True)
    }
    file = RangeFile(folder / ARCHIVE, str(record["sha256"])[:16])
    readers = [ShardReader(file, offsets, stored, size, light) for light in range(max(lights, 1))]
    ranges = record["view_near_far"]
    if ranges is not None:
        ranges = torch.from_numpy(finite_array(ranges, (len(views), 2), path)).float()
    near_far = given_near_far(*map(float, record["near_far"]), source=str(path))
    if options.near_far is not None:
        near_far, ranges = given_near_far(*options.near_far, str(path)) / unit.factor, None
    return PosedScene(
        name=str(record["name"]),
        view_ids=views,
        view_names=tuple(map(str, record["view_names"])),
        cameras=Cameras(resize_intrinsics(intrinsics, *scale).float(), c2w.float()),
        near_far=near_far,
        image_size=size,
        read_view=readers[0],
        image_files=(path,),
        view_near_far=ranges,
        neighbours={
            views[place]: tuple(map(int, others)) for place, others in enumerate(record["ranked"])
        },
        splits={split: tuple(ids) for split, ids in record["splits"].items()},
        lights=tuple(readers[:lights]),
        masks_for_tests_only=bool(record["masks_for_tests_only"]),
        unit=unit,
        origin=torch.from_numpy(finite_array(record["origin"], (3,), path)),
    )


def _checked_offsets(row: Sequence[int], size: Size, lights: int) -> tuple[int, ...]:
    most = _BYTES_PER_PIXEL * size[0] * size[1] + _MORE_BYTES
    offsets = tuple(map(int, row))
    if len(offsets) != lights + 2 or offsets[0] < 0:
        raise ValueError(f"{len(offsets)} offsets of {lights} lights")
    if not all(0 <= end - start <= most for start, end in pairwise(offsets)):
        raise ValueError("offsets that are none of a view")
    return offsets


def write_scene(scene: PosedScene, folder: Path, quality: int, **notes: Any) -> None:  # noqa: ANN401
    """Write a scene as a shard; ``quality`` is JPEG's, and 100 is PNG, without loss.

    Images are written with 8 bits for each colour. ``notes`` are put into the record, which is
    written last: with it, the shard is whole.
    """
    with atomic_write(folder / ARCHIVE, "Choose another place with --out.") as partial:
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
    write_text(folder / RECORD, json.dumps(record), "Choose another place with --out.")


def _add_view(archive: tarfile.TarFile, scene: PosedScene, view: int, quality: int) -> list[int]:
    """Write a view, and return where its parts begin and the last ends."""
    pixels, offsets = scene.read_view(view), [archive.offset]
    if pixels.depth.any():
        _add(archive, f"{view:05d}.{_DEPTH}", pixels.depth, compression="tiff_adobe_deflate")
    if not pixels.mask.all():
        _add(archive, f"{view:05d}.{_MASK}", pixels.mask.astype(np.uint8) * np.uint8(255))
    offsets.append(archive.offset)
    lights: Sequence[ReadView] = scene.lights or (scene.read_view,)
    for light, read_view in enumerate(lights):
        image = np.rint(read_view(view).image * 255).clip(0, 255).astype(np.uint8)
        name = f"{view:05d}.{light}"
        if quality == 100:
            _add(archive, f"{name}.png", image)
        else:
            _add(archive, f"{name}.jpg", image, quality=quality, subsampling=0)
        offsets.append(archive.offset)
    return offsets


def _add(
    archive: tarfile.TarFile,
    name: str,
    values: Shaped[np.ndarray, "height width *channels"],
    **how: Any,  # noqa: ANN401
) -> None:
    kind = {"tif": "TIFF", "png": "PNG", "jpg": "JPEG"}[name.rpartition(".")[2]]
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind, **how)
    member = tarfile.TarInfo(name)
    member.size = file.tell()
    file.seek(0)
    archive.addfile(member, file)
