"""Cameras of photos by structure from motion: SIFT matches and incremental mapping, by COLMAP.

Schoenberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016, through the package pycolmap.
The photos of one size share a camera with one focal length and one coefficient of distortion.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datasets.estimated_cameras import EstimatedCameras
from datasets.formats.depth_range import range_around
from datasets.formats.images.photos import PhotoReader
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from datasets.photo_folder import UprightPhoto
from utils.cameras import Cameras
from utils.errors import UserError

_LONGEST_SIDE = 1200
"""Features are found in photos shrunk to this."""
_FEATURES = 4096
_ALL_PAIRS = 40
"""Of more photos, or of a video, each is matched to its neighbours in order only."""
_NEIGHBOURS = 10
_MIN_PLACED = 2 / 3
_MAX_ERROR = 2e-3
"""Of the longer side of a photo."""
_OFF = 3
"""The level of messages above which COLMAP prints."""


def reconstruct_cameras(
    photos: Sequence[UprightPhoto], in_order: bool = False
) -> EstimatedCameras | None:
    """Find the cameras of the photos that can be placed; None if there is no solution.

    ``in_order`` says that neighbours in the list are neighbours in the scene, as in a video.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        originals = _link_photos(photos, root / "images")
        pycolmap = _import_pycolmap()
        model = _solve(pycolmap, root, in_order or len(photos) > _ALL_PAIRS)
        if model is None:
            return None
        (root / "sparse" / "0").mkdir(parents=True)
        model.write_binary(str(root / "sparse" / "0"))
        scene = open_scene("colmap", root, ReadOptions(photos[0].size))
        reader = scene.read_view
        assert isinstance(reader, PhotoReader)
        lenses = tuple(photo.lens for photo in reader.photos if photo.lens is not None)
    return EstimatedCameras(
        photos=tuple(originals[view] for view in scene.view_names),
        cameras=Cameras(torch.stack([one.intrinsics for one in lenses]).float(), scene.cameras.c2w),
        near_far=_depth_range(model),
        method="structure from motion (SIFT, COLMAP)",
        lenses=lenses,
        reprojection_error=model.compute_mean_reprojection_error(),
    )


def is_trustworthy(found: EstimatedCameras, photos: Sequence[UprightPhoto]) -> bool:
    """Say whether most photos have a camera, and cameras explain the matches."""
    error = found.reprojection_error or 0.0
    longest = max(max(photo.size) for photo in photos)
    return len(found.photos) >= _MIN_PLACED * len(photos) and error <= _MAX_ERROR * longest


def _link_photos(photos: Sequence[UprightPhoto], folder: Path) -> dict[str, UprightPhoto]:
    """Link to the photos by plain names, in a folder for each size; return them by name."""
    originals = {}
    for number, photo in enumerate(photos):
        height, width = photo.size
        name = f"{width}x{height}/{number:06d}{photo.path.suffix}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(photo.path.absolute())
        originals[name] = photo
    return originals


def _import_pycolmap() -> Any:  # noqa: ANN401
    """Import COLMAP, quiet and deterministic, without its own way to end at a signal."""
    ours = signal.getsignal(signal.SIGTERM)
    import pycolmap

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ours)
    pycolmap.logging.minloglevel = _OFF
    pycolmap.set_random_seed(0)
    return pycolmap


def _solve(pycolmap: Any, root: Path, in_order: bool) -> Any:  # noqa: ANN401
    """Return the model with the most photos, or None."""
    database, images = root / "database.db", root / "images"
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.max_image_size = _LONGEST_SIDE
    extraction.sift.max_num_features = _FEATURES
    on_cpu = pycolmap.Device.cpu
    try:
        pycolmap.extract_features(
            *(database, images),
            camera_mode=pycolmap.CameraMode.PER_FOLDER,
            extraction_options=extraction,
            device=on_cpu,
        )
        if in_order:
            pairs = pycolmap.SequentialPairingOptions()
            pairs.overlap = _NEIGHBOURS
            pycolmap.match_sequential(database, pairing_options=pairs, device=on_cpu)
        else:
            pycolmap.match_exhaustive(database, device=on_cpu)
        models = pycolmap.incremental_mapping(database, images, root / "models", _mapping(pycolmap))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"COLMAP failed on these photos ({str(error)[:200]}).") from error
    return max(models.values(), key=lambda model: model.num_reg_images(), default=None)


def _depth_range(model: Any) -> tuple[float, float]:  # noqa: ANN401
    """Return the range of the depths at which the photos see their points."""
    depths = []
    for image in model.images.values():
        seen = [point.point3D_id for point in image.points2D if point.has_point3D()]
        points = np.array([model.points3D[number].xyz for number in seen]).reshape(-1, 3)
        matrix = image.cam_from_world().matrix()
        depths.append(points @ matrix[2, :3] + matrix[2, 3])
    found = torch.from_numpy(np.concatenate(depths))
    return range_around(found[found > 0])


def _mapping(pycolmap: Any) -> Any:  # noqa: ANN401
    """Return options that begin with pairs of small angles and few matches, too.

    As COLMAP has them (16 degrees, 100 matches, 30 for each further photo), forward-facing
    photos find no beginning, and six of fourteen turntable photos no place.
    """
    options = pycolmap.IncrementalPipelineOptions()
    options.extract_colors = False
    options.min_model_size = 2
    options.random_seed = 0
    options.mapper.init_min_tri_angle = 2.0
    options.mapper.init_min_num_inliers = 30
    options.mapper.abs_pose_min_num_inliers = 15
    return options
