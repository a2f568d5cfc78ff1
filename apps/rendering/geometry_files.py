"""Files of a scene's geometry, in the coordinates of its data set: points, meshes, splats, arrays.

PLY coordinates are double precision where the data set's coordinates are too large for single.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Bool, Float, Float64, Int, UInt8
from scipy.spatial.transform import Rotation
from torch import Tensor

from models.scenes.renderable_scene import RenderableScene
from utils.camera_rig import up_direction
from utils.cameras import Cameras
from utils.errors import UserError, first_line
from utils.files import READ_ERRORS, atomic_write
from utils.images import to_bytes

_MIN_FORWARD_MEAN = 0.3
"""Norm of the mean viewing direction above which a rig counts as forward-facing."""
_PLY_TYPES = {"<f4": "float", "<f8": "double", "|u1": "uchar"}
_SH_CONSTANT = 0.28209479177387814
"""Value of the spherical harmonic of degree 0."""
_SPLAT_OPACITY = 0.95
_SPLAT_RADIUS = 0.6
"""Standard deviation of a Gaussian, relative to the distance of neighbouring points."""
_SPLAT_FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"),
    *(f"f_rest_{number}" for number in range(45)),
    *("opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)


@dataclass(frozen=True)
class PointCloud:
    """Coloured points in world coordinates."""

    points: Float[Tensor, "point 3"]
    colors: Float[Tensor, "point 3"]
    """RGB in [0, 1]."""

    @property
    def color_bytes(self) -> UInt8[np.ndarray, "point 3"]:
        """Colours in 8 bits."""
        return to_bytes(self.colors.T[:, None])[0]


@dataclass(frozen=True)
class Renderings:
    """Rendered colour and depth maps of one scene."""

    cameras: Cameras
    """Batch axes ``(view,)``; intrinsics in pixels of the renderings."""
    rgb: Float[Tensor, "view 3 height width"]
    depth: Float[Tensor, "view height width"]
    solid: Bool[Tensor, "view height width"]
    """Pixels with a valid depth."""


def to_file_coordinates(
    points: Float64[np.ndarray, "point 3"], scene: RenderableScene
) -> Float[np.ndarray, "point 3"]:
    """Map points from scene coordinates to those of the data set."""
    if not scene.origin.any():
        return (points * scene.unit.factor).astype(np.float32)
    return (points + scene.origin.numpy()) * scene.unit.factor


def write_points(path: Path, cloud: PointCloud, scene: RenderableScene) -> None:
    """Write a point cloud as PLY."""
    points = to_file_coordinates(cloud.points.cpu().double().numpy(), scene)
    _write_ply(path, _colored_vertices(points, cloud.color_bytes))


def read_points(path: Path) -> PointCloud:
    """Read a coloured point cloud from a PLY file, its coordinates in double precision."""
    try:
        with path.open("rb") as file:
            # Force PLY whatever the suffix: other formats can refer to further files.
            cloud = trimesh.load(file, file_type="ply")
        points = torch.from_numpy(np.array(cloud.vertices, np.float64))  # pyright: ignore
        colors = torch.from_numpy(np.array(cloud.colors)[:, :3] / 255).float()  # pyright: ignore
    except READ_ERRORS as error:
        raise UserError(
            f"{path}: cannot be read as a coloured point cloud ({first_line(error)}); give a .ply "
            "file of apps.export_geometry"
        ) from error
    return PointCloud(points, colors)


def write_mesh(path: Path, mesh: trimesh.Trimesh, scene: RenderableScene) -> None:
    """Write a mesh as PLY in file coordinates, or as GLB centred, with y up and facing +z."""
    if not len(mesh.faces):
        raise UserError(f"{path}: the renderings show no surface, so there is no mesh to write")
    if path.suffix.lower() != ".glb":
        colors = np.asarray(mesh.visual.vertex_colors)[:, :3]  # pyright: ignore
        points = to_file_coordinates(np.asarray(mesh.vertices), scene)
        _write_ply(path, _colored_vertices(points, colors), mesh.faces)
        return
    mesh = mesh.copy()
    mesh.apply_translation(-mesh.bounds.mean(0))
    mesh.apply_scale(scene.unit.factor)
    mesh.apply_transform(_gltf_orientation(scene.cameras))
    with atomic_write(path) as partial:
        mesh.export(partial)


def write_splats(path: Path, cloud: PointCloud, spacing: float, scene: RenderableScene) -> None:
    """Write points, ``spacing`` apart in scene units, as isotropic Gaussians.

    Layout of "3D Gaussian Splatting" (Kerbl et al., SIGGRAPH 2023): spherical harmonics for the
    colours (here of degree 0 only), logit of the opacity, logarithm of the scales.
    """
    splats = np.zeros(len(cloud.points), [(name, "<f4") for name in _SPLAT_FIELDS])
    points = to_file_coordinates(cloud.points.cpu().double().numpy(), scene)
    for axis, name in enumerate("xyz"):
        splats[name] = points[:, axis]
        splats[f"f_dc_{axis}"] = (cloud.colors[:, axis].numpy() - 0.5) / _SH_CONSTANT
        splats[f"scale_{axis}"] = np.log(_SPLAT_RADIUS * spacing * scene.unit.factor)
    splats["opacity"] = np.log(_SPLAT_OPACITY / (1 - _SPLAT_OPACITY))
    splats["rot_0"] = 1.0
    _write_ply(path, splats)


def write_arrays(path: Path, renderings: Renderings, scene: RenderableScene) -> None:
    """Write ``depth`` (0 where invalid), ``rgb``, ``K`` and ``c2w`` of every rendering.

    Depths and positions are in the unit and coordinates of the data set; axes are OpenCV's.
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


def _gltf_orientation(cameras: Cameras) -> Float64[np.ndarray, "4 4"]:
    """Return the rotation to y up, and to z towards the cameras if the rig is forward-facing."""
    up = up_direction(cameras).double().numpy()
    front = -cameras.c2w[:, :3, 2].double().mean(0).numpy()
    level = front - (front @ up) * up
    source, target, weights = [up], [[0.0, 1, 0]], [1.0]
    if np.linalg.norm(level) > _MIN_FORWARD_MEAN:
        source, target = [up, level], [[0.0, 1, 0], [0.0, 0, 1]]
        weights = [np.inf, 1.0]
    rotation = np.eye(4)
    rotation[:3, :3] = Rotation.align_vectors(target, source, weights)[0].as_matrix()
    return rotation


def _colored_vertices(
    points: Float[np.ndarray, "point 3"], colors: UInt8[np.ndarray, "point 3"]
) -> np.ndarray:
    """Return a structured array of PLY vertices; coordinates keep their precision."""
    code = "<f4" if points.dtype == np.float32 else "<f8"
    fields = [(axis, code) for axis in "xyz"]
    fields += [(channel, "u1") for channel in ("red", "green", "blue")]
    return np.rec.fromarrays([*points.T, *colors.T], dtype=fields)


def _write_ply(
    path: Path, vertices: np.ndarray, faces: Int[np.ndarray, "face 3"] | None = None
) -> None:
    """Write a binary PLY (Turk, 1994); fields of ``vertices`` become vertex properties."""
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {_PLY_TYPES[code]} {name}" for name, code, *_ in vertices.dtype.descr]
    content = vertices.tobytes()
    if faces is not None:
        triangles = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
        triangles["count"], triangles["corners"] = 3, faces
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        content += triangles.tobytes()
    with atomic_write(path) as partial:
        partial.write_bytes("\n".join([*header, "end_header", ""]).encode() + content)
