"""Points and a mesh of a scene, from its settings to the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import trimesh
from scipy.spatial.transform import Rotation

from apps.rendering.config import GeometryConfig
from apps.rendering.frames import Job, SourceSet, read_frames, render_frames
from apps.rendering.fusion import PointCloud, Renderings, fuse_mesh, fuse_points
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import CameraPath
from apps.rendering.scene import RenderableScene, RenderedView
from utils.camera_rig import up_direction
from utils.cameras import Cameras
from utils.errors import UserError
from utils.files import check_output_file, written_whole
from utils.trajectories import path_intrinsics

_FEW_POINTS = 100


def run_export(config: GeometryConfig, progress: bool = True) -> str:
    """Render, fuse, write, and say what was made."""
    choice = config.geometry
    check_output_file(choice.out, "--out")
    if choice.mesh:
        check_output_file(choice.mesh, "--mesh")
    size = (choice.size[0], choice.size[1]) if choice.size else None
    scene = open_scene(config.scene, config.model, size)
    job = source_job(scene, size or scene.image_size, choice.max_renderings)
    store = job.store(choice.out)
    render_frames(job, store, progress)
    renderings = gather(job, [*read_frames(job, store)])
    cloud = fuse_points(renderings, choice.tolerance, min(choice.min_agreeing, len(job) - 1))
    if len(cloud.points) < _FEW_POINTS:
        raise UserError(
            f"{scene.name}: the {len(job)} renderings agree on {len(cloud.points)} points only; "
            "allow more with --tolerance, ask fewer with --min_agreeing, or use a better model"
        )
    write_points(Path(choice.out), cloud, scene)
    made = [f"{choice.out}: {len(cloud.points)} points in {scene.unit.name}"]
    if choice.mesh:
        mesh = fuse_mesh(renderings, cloud, choice.resolution)
        write_mesh(Path(choice.mesh), mesh, scene)
        made.append(f"{choice.mesh}: {len(mesh.faces)} triangles")
    store.remove()
    return "\n".join(made)


def source_job(scene: RenderableScene, size: tuple[int, int], most: int) -> Job:
    """Plan to render a scene from its own cameras, each from its nearest sources."""
    sources = scene.cameras
    count = min(most, len(sources.c2w))
    indices = torch.linspace(0, len(sources.c2w) - 1, count).round().long()
    intrinsics = [
        path_intrinsics(sources.intrinsics[index, None], scene.image_size, size)
        for index in indices.tolist()
    ]
    cameras = Cameras(torch.stack(intrinsics), sources.c2w[indices])
    sets = tuple((SourceSet(one, 1.0),) for one in scene.choose_sources(cameras, size))
    return Job(scene, CameraPath(cameras, size, closed=False), sets)


def gather(job: Job, views: Sequence[RenderedView]) -> Renderings:
    """Bring finished frames together."""
    return Renderings(
        job.path.cameras,
        torch.stack([view.rgb for view in views]),
        torch.stack([view.depth for view in views]),
        torch.stack([view.solid for view in views]),
    )


def write_points(path: Path, cloud: PointCloud, scene: RenderableScene) -> None:
    """Write a point cloud in the scene's world, in the unit that its depths are shown in."""
    colors = (cloud.colors.clamp(0, 1) * 255).round().byte().cpu().numpy()
    opaque = np.concatenate([colors, np.full_like(colors[:, :1], 255)], 1)
    points = cloud.points.cpu().double().numpy() * scene.unit.factor
    with written_whole(path) as partial:
        trimesh.PointCloud(points, opaque).export(partial)


def read_points(path: Path) -> PointCloud:
    """Read a coloured point cloud."""
    try:
        cloud = trimesh.load(path)
        points = torch.from_numpy(np.array(cloud.vertices, np.float32))  # pyright: ignore
        colors = torch.from_numpy(np.array(cloud.colors)[:, :3] / 255).float()  # pyright: ignore
    except (OSError, ValueError, AttributeError, IndexError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as a coloured point cloud ({error})") from error
    return PointCloud(points, colors)


def write_mesh(path: Path, mesh: trimesh.Trimesh, scene: RenderableScene) -> None:
    """Write a mesh; in a .glb up is y, as glTF wants it, else the scene's world is kept."""
    if not len(mesh.faces):
        raise UserError(f"{path}: the renderings show no surface, there is no mesh to write")
    mesh = mesh.copy()
    mesh.apply_scale(scene.unit.factor)
    if path.suffix.lower() == ".glb":
        transform = np.eye(4)
        up = up_direction(scene.cameras).numpy()[None]
        transform[:3, :3] = Rotation.align_vectors([[0.0, 1, 0]], up)[0].as_matrix()
        mesh.apply_transform(transform)
    with written_whole(path) as partial:
        mesh.export(partial)
