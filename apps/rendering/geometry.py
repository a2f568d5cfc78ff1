"""Points and a mesh of a scene, from its settings to the files."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from torch import Tensor

from apps.rendering.config import RendererChoice, SceneChoice
from apps.rendering.cross_fade import SourceSet
from apps.rendering.frames import Job, read_frames, render_frames
from apps.rendering.fusion import PointCloud, Renderings, fuse_points
from apps.rendering.mesh import fuse_mesh, grid_around
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import CameraPath
from apps.rendering.scene import RenderableScene
from apps.rendering.video import frame_store
from utils.cameras import Cameras
from utils.errors import UserError
from utils.files import check_output_file
from utils.surroundings import upward
from utils.trajectories import path_intrinsics

logger = logging.getLogger(__name__)

_FEW_POINTS = 100


@dataclass(frozen=True)
class GeometryChoice:
    """How geometry is made of rendered depths, and where it goes."""

    out: str = "results/points.ply"
    """Point cloud (.ply)"""
    mesh: str = ""
    """Triangle mesh (.ply or .glb); none: no mesh"""
    size: tuple[int, ...] = ()
    """Height and width of the renderings; none: as the photographs are read"""
    max_renderings: int = 16
    """Source cameras that are rendered, spread evenly over all of them"""
    tolerance: float = 0.01
    """Two depths agree if they differ by no more than this share"""
    min_agreeing: int = 2
    """How many other renderings must agree on a point, if there are as many"""
    resolution: int = 192
    """Cells of the mesh's grid along its longest side"""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: Names the value.
        """
        if len(self.size) not in (0, 2) or (self.size and min(self.size) < 8):
            raise ValueError(f"size={self.size}: takes height and width, of at least 8 pixels")
        if self.max_renderings < 1 or self.min_agreeing < 0 or self.tolerance <= 0:
            raise ValueError("max_renderings and tolerance must be positive, min_agreeing not less")
        if not 8 <= self.resolution <= 1024:
            raise ValueError(f"resolution={self.resolution} must lie between 8 and 1024")
        for name, value, endings in (
            ("out", self.out, (".ply",)),
            ("mesh", self.mesh or ".ply", (".ply", ".glb")),
        ):
            if not value.lower().endswith(endings):
                raise ValueError(f"{name}={value}: must end in {' or '.join(endings)}")


@dataclass(frozen=True)
class GeometryConfig:
    """All settings of ``python -m apps.export_geometry``."""

    scene: SceneChoice = field(default_factory=SceneChoice)
    model: RendererChoice = field(default_factory=RendererChoice)
    geometry: GeometryChoice = field(default_factory=GeometryChoice)


def run_export(config: GeometryConfig, progress: bool = True) -> str:
    """Render, fuse, write, and say what was made.

    Raises:
        UserError: Bad input, or no two renderings agree.
    """
    choice = config.geometry
    for path in filter(None, (choice.out, choice.mesh)):
        check_output_file(Path(path), "--out" if path == choice.out else "--mesh")
    wanted = (choice.size[0], choice.size[1]) if choice.size else None
    scene = open_scene(config.scene, config.model, wanted)
    job = source_job(scene, wanted or scene.image_size, choice.max_renderings)
    store = frame_store(job, choice.out)
    render_frames(job, store, progress)
    renderings = gather(job, [*read_frames(job, store)])
    cloud = fuse_points(renderings, choice.tolerance, min(choice.min_agreeing, len(job) - 1))
    if len(cloud.points) < _FEW_POINTS:
        raise UserError(
            f"{scene.name}: the {len(job)} renderings agree on {len(cloud.points)} points only; "
            "allow more with --tolerance, ask fewer with --min_agreeing, or use a better model"
        )
    write_points(Path(choice.out), cloud, scene)
    said = [f"{choice.out}: {len(cloud.points)} points in {scene.unit.name}"]
    if choice.mesh:
        mesh = fuse_mesh(renderings, grid_around(cloud, choice.resolution))
        write_mesh(Path(choice.mesh), mesh, scene)
        said.append(f"{choice.mesh}: {len(mesh.faces)} triangles")
    store.remove()
    return "\n".join(said)


def source_job(scene: RenderableScene, size: tuple[int, int], most: int) -> Job:
    """Plan to render a scene from its own cameras, each from its nearest sources."""
    sources = scene.cameras
    count = min(most, len(sources.c2w))
    places = torch.linspace(0, len(sources.c2w) - 1, count).round().long()
    intrinsics = [
        path_intrinsics(sources.intrinsics[place, None], scene.image_size, size)
        for place in places.tolist()
    ]
    cameras = Cameras(torch.stack(intrinsics), sources.c2w[places])
    sets = tuple((SourceSet(one, 1.0),) for one in scene.choose_sources(cameras, size))
    return Job(scene, CameraPath(cameras, size, closed=False), sets)


def gather(job: Job, pictures: list) -> Renderings:
    """Bring finished frames together."""
    return Renderings(
        job.path.cameras,
        torch.stack([picture.rgb for picture in pictures]),
        torch.stack([picture.depth for picture in pictures]),
        torch.stack([picture.solid for picture in pictures]),
    )


def write_points(path: Path, cloud: PointCloud, scene: RenderableScene) -> None:
    """Write a point cloud in the scene's world, in the unit that its depths are shown in.

    Raises:
        UserError: The file cannot be written.
    """
    colors = (cloud.colors.clamp(0, 1) * 255).round().byte().cpu().numpy()
    opaque = np.concatenate([colors, np.full_like(colors[:, :1], 255)], 1)
    points = cloud.points.cpu().double().numpy() * scene.unit.factor
    _write(path, lambda partial: trimesh.PointCloud(points, opaque).export(partial))


def write_mesh(path: Path, mesh: trimesh.Trimesh, scene: RenderableScene) -> None:
    """Write a mesh; in a .glb up is y, as glTF wants it, else the scene's world is kept.

    Raises:
        UserError: The mesh is empty, or the file cannot be written.
    """
    if not len(mesh.faces):
        raise UserError(f"{path}: the renderings show no surface, there is no mesh to write")
    turned = mesh.copy()
    turned.apply_scale(scene.unit.factor)
    if path.suffix.lower() == ".glb":
        turned.apply_transform(_up_to_y(upward(scene.cameras)))
    _write(path, lambda partial: turned.export(partial))


def _up_to_y(up: Float[Tensor, " 3"]) -> np.ndarray:
    transform = np.eye(4)
    helper = torch.eye(3, dtype=up.dtype)[up.abs().argmin()]
    x = torch.nn.functional.normalize(torch.linalg.cross(helper, up), dim=0)
    transform[:3, :3] = torch.stack([x, up, torch.linalg.cross(x, up)]).numpy()
    return transform


def _write(path: Path, export: Callable[[Path], object]) -> None:
    partial = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        export(partial)
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with suppress(OSError):
            partial.unlink()
