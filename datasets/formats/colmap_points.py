"""The sparse points of a COLMAP model: which view saw which point.

A folder may lack ``images.bin``, as those of the LLFF scenes do; images are then numbered in the
order of their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.formats.colmap_files import find_model_file, read_images, read_points


@dataclass(frozen=True)
class SparsePoints:
    """Triangulated points."""

    positions: Float[Tensor, "point 3"]
    """In the world of COLMAP's cameras."""
    seen: tuple[Int[Tensor, " _"], ...]
    """For every image, in the order of the images' names, which points it saw."""


def read_colmap_points(folder: Path) -> SparsePoints:
    """Read the points of a model, and its images if they are there.

    Raises:
        UserError: A file is missing or damaged.
    """
    points = read_points(find_model_file(folder, "points3D") or folder / "points3D.bin")
    images_path = find_model_file(folder, "images")
    names = {} if images_path is None else read_images(images_path)
    images = sorted(names, key=lambda image: names[image].name) or sorted(points.tracks)
    seen = tuple(torch.tensor(points.tracks.get(image, []), dtype=torch.int64) for image in images)
    return SparsePoints(torch.from_numpy(points.positions).float(), seen)
