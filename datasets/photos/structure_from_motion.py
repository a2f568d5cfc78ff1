"""Cameras of photos by incremental structure from motion with SIFT, through pycolmap.

Schoenberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016. Photos of one size share a
camera with one focal length and one distortion coefficient.
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

from datasets.formats.depth_range import range_around
from datasets.formats.images.photos import PhotoReader
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from datasets.photos.estimated_cameras import EstimatedCameras
from datasets.photos.preparation import UprightPhoto
from utils.cameras import Cameras
from utils.errors import UserError

_MAX_SIDE = 1200
"""Longer side of the photos in which features are detected."""
_MAX_FEATURES = 4096
_MAX_EXHAUSTIVE = 40
"""Most photos that are matched exhaustively; more photos, and videos, are matched in sequence."""
_SEQUENTIAL_OVERLAP = 10
_MIN_REGISTERED = 2 / 3
_MAX_ERROR = 2e-3
"""Reprojection error relative to the longer side of a photo."""
_FATAL = 3
"""COLMAP's log level for fatal errors only."""


def reconstruct_cameras(
    photos: Sequence[UprightPhoto], in_order: bool = False
) -> EstimatedCameras | None:
    """Estimate the cameras of the photos that can be registered; None if there is no solution.

    ``in_order`` states that consecutive photos overlap, as in a video.
    """
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        originals = _link_photos(photos, root / "images")
        pycolmap = _import_pycolmap()
        model = _solve(pycolmap, root, in_order or len(photos) > _MAX_EXHAUSTIVE)
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
        cameras=Cameras(
            torch.stack([lens.intrinsics for lens in lenses]).float(), scene.cameras.c2w
        ),
        near_far=_depth_range(model),
        method="structure from motion (SIFT, COLMAP)",
        lenses=lenses,
        reprojection_error=model.compute_mean_reprojection_error(),
    )


def is_reliable(estimated: EstimatedCameras, photos: Sequence[UprightPhoto]) -> bool:
    """Check that most photos are registered, with a small reprojection error."""
    error = estimated.reprojection_error or 0.0
    longest = max(max(photo.size) for photo in photos)
    return len(estimated.photos) >= _MIN_REGISTERED * len(photos) and error <= _MAX_ERROR * longest


def _link_photos(photos: Sequence[UprightPhoto], folder: Path) -> dict[str, UprightPhoto]:
    """Link the photos under ASCII names, in one folder for each size; return them by name."""
    originals = {}
    for number, photo in enumerate(photos):
        height, width = photo.size
        name = f"{width}x{height}/{number:06d}{photo.path.suffix}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(photo.path.absolute())
        originals[name] = photo
    return originals


def _import_pycolmap() -> Any:  # noqa: ANN401
    """Import pycolmap, silence it, seed it, and undo its SIGTERM handler."""
    handler = signal.getsignal(signal.SIGTERM)
    import pycolmap

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
    pycolmap.logging.minloglevel = _FATAL
    pycolmap.set_random_seed(0)
    return pycolmap


def _solve(pycolmap: Any, root: Path, in_order: bool) -> Any:  # noqa: ANN401
    """Run COLMAP and return the model with the most photos, or None."""
    database, images = root / "database.db", root / "images"
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.max_image_size = _MAX_SIDE
    extraction.sift.max_num_features = _MAX_FEATURES
    on_cpu = pycolmap.Device.cpu
    try:
        pycolmap.extract_features(
            database,
            images,
            camera_mode=pycolmap.CameraMode.PER_FOLDER,
            extraction_options=extraction,
            device=on_cpu,
        )
        if in_order:
            pairs = pycolmap.SequentialPairingOptions()
            pairs.overlap = _SEQUENTIAL_OVERLAP
            pycolmap.match_sequential(database, pairing_options=pairs, device=on_cpu)
        else:
            pycolmap.match_exhaustive(database, device=on_cpu)
        models = pycolmap.incremental_mapping(
            database, images, root / "models", _mapping_options(pycolmap)
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"COLMAP failed on these photos ({str(error)[:200]}). Use the cameras of the backbone: "
            "python -m apps.estimate_cameras --method vggt"
        ) from error
    return max(models.values(), key=lambda model: model.num_reg_images(), default=None)


def _depth_range(model: Any) -> tuple[float, float]:  # noqa: ANN401
    """Return near and far around the depths of all observed points."""
    depths = []
    for image in model.images.values():
        ids = [point.point3D_id for point in image.points2D if point.has_point3D()]
        points = np.array([model.points3D[number].xyz for number in ids]).reshape(-1, 3)
        matrix = image.cam_from_world().matrix()
        depths.append(points @ matrix[2, :3] + matrix[2, 3])
    observed = torch.from_numpy(np.concatenate(depths))
    return range_around(observed[observed > 0])


def _mapping_options(pycolmap: Any) -> Any:  # noqa: ANN401
    """Return options that accept initial pairs of small angles and few matches.

    With COLMAP's defaults (16 degrees, 100 matches, 30 for each further photo), forward-facing
    photos have no initial pair, and six of fourteen turntable photos are not registered.
    """
    options = pycolmap.IncrementalPipelineOptions()
    options.extract_colors = False
    options.min_model_size = 2
    options.random_seed = 0
    options.mapper.init_min_tri_angle = 2.0
    options.mapper.init_min_num_inliers = 30
    options.mapper.abs_pose_min_num_inliers = 15
    return options
