"""Geometry for other programs: points as Gaussian splats, and renderings as arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from apps.rendering.geometry import Renderings
from apps.rendering.geometry_files import PointCloud, in_file
from models.scenes.renderable_scene import RenderableScene
from utils.files import atomic_write

_CONSTANT = 0.28209479177387814
"""Value of the constant spherical harmonic."""
_OPACITY = 0.95
_RADIUS = 0.6
"""Standard deviation of a splat, in distances of neighbouring points: without gaps, yet sharp."""
_HIGHER = 45
"""Coefficients of the directions, which are all 0: colours are those of the mean view."""
_FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
    *(f"f_rest_{number}" for number in range(_HIGHER)),
    *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


def write_splats(path: Path, cloud: PointCloud, spacing: float, scene: RenderableScene) -> None:
    """Write points, ``spacing`` apart, as round Gaussians, in the coordinates of the data set.

    The layout is that of "3D Gaussian Splatting" (Kerbl et al., SIGGRAPH 2023): colours by
    spherical harmonics, opacity before its sigmoid, scales before their exponential.
    """
    values = {name: np.zeros(len(cloud.points), np.float32) for name in _FIELDS}
    points = in_file(cloud.points.cpu().double().numpy(), scene)
    for axis, name in enumerate("xyz"):
        values[name][:] = points[:, axis]
        values[f"f_dc_{axis}"][:] = (cloud.colors[:, axis].numpy() - 0.5) / _CONSTANT
        values[f"scale_{axis}"][:] = np.log(_RADIUS * spacing * scene.unit.factor)
    values["opacity"][:] = np.log(_OPACITY / (1 - _OPACITY))
    values["rot_0"][:] = 1.0
    rows = np.stack(list(values.values()), 1)
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in _FIELDS]
    with atomic_write(path) as partial:
        partial.write_bytes("\n".join([*header, "end_header", ""]).encode() + rows.tobytes())


def write_arrays(path: Path, renderings: Renderings, scene: RenderableScene) -> None:
    """Write ``depth`` (0 where nothing is solid), ``rgb``, ``K`` and ``c2w`` of every rendering.

    Depths and positions are in the unit and coordinates of the data set, axes OpenCV's.
    """
    c2w = renderings.cameras.c2w.double().numpy().copy()
    c2w[:, :3, 3] = (c2w[:, :3, 3] + scene.origin.numpy()) * scene.unit.factor
    depth = renderings.depth.where(renderings.solid, renderings.depth.new_zeros(()))
    arrays = {
        "depth": (depth * scene.unit.factor).float().numpy(),
        "rgb": (renderings.rgb.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy(),
        "K": renderings.cameras.intrinsics.double().numpy(),
        "c2w": c2w,
    }
    with atomic_write(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
