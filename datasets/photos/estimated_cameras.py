"""Estimated cameras of photos, and their ``transforms.json``."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.formats.images.lenses import Lens
from datasets.photos.preparation import UprightPhoto
from utils.cameras import Cameras
from utils.files import write_text

_OPENGL = (1.0, -1.0, -1.0, 1.0)
_DISTORTION = {
    "perspective": ("OPENCV", ("k1", "k2", "p1", "p2", "k3")),
    "fisheye": ("OPENCV_FISHEYE", ("k1", "k2", "k3", "k4")),
}
"""Camera model and names of the coefficients in ``transforms.json``, for each lens model."""


@dataclass(frozen=True)
class EstimatedCameras:
    """Cameras of photos, in an arbitrary unit of length."""

    photos: tuple[UprightPhoto, ...]
    """The photos whose camera is known."""
    cameras: Cameras
    """One for each photo, at the size of the photo."""
    near_far: tuple[float, float]
    method: str
    """Name of the method, for log messages."""
    lenses: tuple[Lens, ...] = ()
    """Lens with distortion of each photo; empty if unknown."""
    reprojection_error: float | None = None
    """Mean reprojection error of the matches, in pixels of the photos."""

    def describe(self, total: int) -> str:
        """Summarise the estimate in one line; ``total`` counts the photos that were given."""
        summary = f"cameras of {len(self.photos)} of {total} photos by {self.method}"
        if self.reprojection_error is None:
            return f"{summary}: not checked against the images"
        return f"{summary}: mean reprojection error {self.reprojection_error:.2f} pixels"


def write_transforms(path: Path, estimated: EstimatedCameras) -> None:
    """Write ``transforms.json``; the paths of the photos are relative to its folder.

    Symbolic links are resolved: ``..`` of a linked folder is the parent of what it links to.
    """
    folder = path.parent.resolve()
    frames = [
        _frame(photo, estimated.cameras[index], folder)
        for index, photo in enumerate(estimated.photos)
    ]
    for frame, lens in zip(frames if estimated.lenses else (), estimated.lenses, strict=True):
        model, names = _DISTORTION[lens.model]
        frame |= {"camera_model": model, **dict(zip(names, lens.coefficients, strict=True))}
    near, far = estimated.near_far
    content = {"near": near, "far": far, "frames": frames}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False))


def _frame(photo: UprightPhoto, camera: Cameras, folder: Path) -> dict[str, Any]:
    matrix = camera.c2w.double() * torch.tensor(_OPENGL, dtype=torch.float64)
    intrinsics = camera.intrinsics.double()
    file = photo.path.parent.resolve() / photo.path.name
    return {
        "file_path": Path(os.path.relpath(file, folder)).as_posix(),
        "fl_x": intrinsics[0, 0].item(),
        "fl_y": intrinsics[1, 1].item(),
        "cx": intrinsics[0, 2].item(),
        "cy": intrinsics[1, 2].item(),
        "w": photo.size[1],
        "h": photo.size[0],
        "transform_matrix": matrix.tolist(),
    }
