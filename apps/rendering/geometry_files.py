"""Files of a scene's geometry: point clouds and meshes in the coordinates of its data set.

Coordinates are written in double precision where the data set's are too large for single.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float, Float64, Int, UInt8
from scipy.spatial.transform import Rotation
from torch import Tensor

from models.scenes.renderable_scene import RenderableScene
from utils.camera_rig import up_direction
from utils.cameras import Cameras
from utils.errors import UserError, first_line
from utils.files import READ_ERRORS, atomic_write
from utils.images import to_bytes

_LEAST_FRONT = 0.3
"""Length of the mean of viewing directions from which on cameras stand on one side."""


@dataclass(frozen=True)
class PointCloud:
    """Coloured points in the world."""

    points: Float[Tensor, "point 3"]
    colors: Float[Tensor, "point 3"]
    """RGB in [0, 1]."""

    @property
    def color_bytes(self) -> UInt8[np.ndarray, "point 3"]:
        """Colours of 8 bit."""
        return to_bytes(self.colors.T[:, None])[0]


def write_points(path: Path, cloud: PointCloud, scene: RenderableScene) -> None:
    """Write a point cloud in the scene's world, in the unit that its depths are shown in."""
    _write_ply(path, in_file(cloud.points.cpu().double().numpy(), scene), cloud.color_bytes)


def read_points(path: Path) -> PointCloud:
    """Read a coloured point cloud; its coordinates keep their precision."""
    try:
        with path.open("rb") as file:
            # Of no other kind, whatever its name says: some of them load further files.
            cloud = trimesh.load(file, file_type="ply")
        points = torch.from_numpy(np.array(cloud.vertices, np.float64))  # pyright: ignore
        colors = torch.from_numpy(np.array(cloud.colors)[:, :3] / 255).float()  # pyright: ignore
    except READ_ERRORS as error:
        told = f"{path}: cannot be read as a coloured point cloud ({first_line(error)})"
        raise UserError(told) from error
    return PointCloud(points, colors)


def write_mesh(path: Path, mesh: trimesh.Trimesh, scene: RenderableScene) -> None:
    """Write a mesh in the scene's world; in a .glb upright, facing +z and about the origin.

    So glTF wants it, and viewers show it whole.
    """
    if not len(mesh.faces):
        raise UserError(f"{path}: the renderings show no surface, there is no mesh to write")
    if path.suffix.lower() != ".glb":
        colors = np.asarray(mesh.visual.vertex_colors)[:, :3]  # pyright: ignore
        _write_ply(path, in_file(np.asarray(mesh.vertices), scene), colors, mesh.faces)
        return
    mesh = mesh.copy()
    mesh.apply_translation(-mesh.bounds.mean(0))
    mesh.apply_scale(scene.unit.factor)
    mesh.apply_transform(_turn_to_front(scene.cameras))
    with atomic_write(path) as partial:
        mesh.export(partial)


def _turn_to_front(cameras: Cameras) -> Float64[np.ndarray, "4 4"]:
    """Return the rotation to y up, and z towards the cameras if they stand on one side."""
    up = up_direction(cameras).double().numpy()
    front = -cameras.c2w[:, :3, 2].double().mean(0).numpy()
    level = front - (front @ up) * up
    given, wanted, weights = [up], [[0.0, 1, 0]], [1.0]
    if np.linalg.norm(level) > _LEAST_FRONT:
        given, wanted = [up, level], [[0.0, 1, 0], [0.0, 0, 1]]
        weights = [np.inf, 1.0]
    turn = np.eye(4)
    turn[:3, :3] = Rotation.align_vectors(wanted, given, weights)[0].as_matrix()
    return turn


def in_file(
    points: Float64[np.ndarray, "point 3"], scene: RenderableScene
) -> Float[np.ndarray, "point 3"]:
    """Bring points of the scene to the coordinates of its data set."""
    if not scene.origin.any():
        return (points * scene.unit.factor).astype(np.float32)
    return (points + scene.origin.numpy()) * scene.unit.factor


def _write_ply(
    path: Path,
    points: Float[np.ndarray, "point 3"],
    colors: UInt8[np.ndarray, "point 3"],
    faces: Int[np.ndarray, "face 3"] | None = None,
) -> None:
    """Write a binary PLY (Turk, 1994), its coordinates in their own precision."""
    name, code = ("float", "<f4") if points.dtype == np.float32 else ("double", "<f8")
    rows = np.empty(len(points), [("place", code, 3), ("color", "u1", 3)])
    rows["place"], rows["color"] = points, colors
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property {name} {axis}" for axis in "xyz"]
    header += [f"property uchar {channel}" for channel in ("red", "green", "blue")]
    content = rows.tobytes()
    if faces is not None:
        triangles = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
        triangles["count"], triangles["corners"] = 3, faces
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        content += triangles.tobytes()
    with atomic_write(path) as partial:
        partial.write_bytes("\n".join([*header, "end_header", ""]).encode() + content)
