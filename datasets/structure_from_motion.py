"""Cameras of photos by COLMAP, through pycolmap where somebody has installed it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from datasets.formats.lenses import Lens
from datasets.formats.options import ReadOptions
from datasets.formats.photo_files import PhotoReader
from datasets.formats.registry import open_scene
from datasets.photo_folder import UprightPhoto
from utils.errors import UserError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reconstruction:
    """The photos that COLMAP could place, and how they were taken."""

    photos: tuple[UprightPhoto, ...]
    lenses: tuple[Lens, ...]
    c2w: Float[Tensor, "view 4 4"]
    near_far: Float[Tensor, " 2"]


def reconstruct(photos: Sequence[UprightPhoto]) -> Reconstruction:
    """Match all photos with each other and solve for cameras and points, on the CPU.

    Raises:
        UserError: pycolmap is not installed, or finds no solution.
    """
    pycolmap = _import_pycolmap()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "images").mkdir()
        originals = {}
        for number, photo in enumerate(photos):
            link = root / "images" / f"{number:06d}{photo.path.suffix}"
            link.symlink_to(photo.path.absolute())
            originals[link.name] = photo
        _solve(pycolmap, root, one_camera=len({photo.size for photo in photos}) == 1)
        scene = open_scene("colmap", root, ReadOptions(photos[0].size))
        reader = scene.read_view
        assert isinstance(reader, PhotoReader)
        placed = tuple(originals[view] for view in scene.view_names)
        lenses = tuple(photo.lens for photo in reader.photos if photo.lens is not None)
    if len(placed) < len(photos):
        _LOG.warning(
            "COLMAP placed %d of %d photos; the others are left out", len(placed), len(photos)
        )
    return Reconstruction(placed, lenses, scene.cameras.c2w, scene.near_far)


def _solve(pycolmap: Any, root: Path, one_camera: bool) -> None:  # noqa: ANN401
    """Write the largest model that is found to ``sparse/0``."""
    database, images = root / "database.db", root / "images"
    mode = pycolmap.CameraMode.SINGLE if one_camera else pycolmap.CameraMode.PER_IMAGE
    try:
        pycolmap.extract_features(database, images, camera_mode=mode)
        pycolmap.match_exhaustive(database)
        models = pycolmap.incremental_mapping(database, images, root / "models")
    except (RuntimeError, ValueError) as error:
        raise UserError(f"COLMAP failed on these photos ({str(error)[:200]}).") from error
    if not models:
        raise UserError(
            "COLMAP found no solution: the photos have too little texture or overlap. Take more, "
            "closer to each other, or use --method vggt."
        )
    best = max(models.values(), key=lambda model: model.num_reg_images())
    (root / "sparse" / "0").mkdir(parents=True)
    best.write_binary(str(root / "sparse" / "0"))


def _import_pycolmap() -> Any:  # noqa: ANN401
    try:
        import pycolmap  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "--method colmap needs the package pycolmap: pip install pycolmap"
        ) from error
    return pycolmap
