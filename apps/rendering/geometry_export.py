"""From a scene to the files of its geometry: render depths, fuse them, write."""

from __future__ import annotations

from pathlib import Path

from apps.rendering.config import GeometryConfig
from apps.rendering.cost import render_frames
from apps.rendering.geometry import fuse_mesh, fuse_points, gather, pixel_footprint, source_job
from apps.rendering.geometry_files import write_mesh, write_points
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import frame_size
from apps.rendering.splats import write_arrays, write_splats
from utils.errors import UserError
from utils.files import check_output_file

_FEW_POINTS = 100


def run_export(config: GeometryConfig, progress: bool = True) -> str:
    """Render, fuse, write, and say what was made."""
    for name in ("out", "mesh", "splats", "arrays"):
        if path := getattr(config, name):
            check_output_file(path, f"--{name}")
    size = frame_size(config)
    scene = open_scene(config.scene, config.model, size)
    job = source_job(scene, size or scene.image_size, config.max_renderings)
    store = job.store(config.out)
    render_frames(job, store, progress)
    renderings = gather(job, store.read_all(len(job)))
    cloud = fuse_points(renderings, config.tolerance, min(config.min_agreeing, len(job) - 1))
    if len(cloud.points) < _FEW_POINTS:
        raise UserError(
            f"{scene.name}: the {len(job)} renderings agree on {len(cloud.points)} points only; "
            "allow more with --tolerance, ask fewer with --min_agreeing, or use a better model"
        )
    write_points(Path(config.out), cloud, scene)
    made = [f"{config.out}: {len(cloud.points)} points in {scene.unit.name}"]
    if config.mesh:
        mesh = fuse_mesh(renderings, cloud, config.resolution)
        write_mesh(Path(config.mesh), mesh, scene)
        made.append(f"{config.mesh}: {len(mesh.faces)} triangles")
    if config.splats:
        write_splats(Path(config.splats), cloud, pixel_footprint(renderings), scene)
        made.append(f"{config.splats}: {len(cloud.points)} Gaussians")
    if config.arrays:
        write_arrays(Path(config.arrays), renderings, scene)
        made.append(f"{config.arrays}: depths, colours and cameras of {len(job)} renderings")
    store.remove()
    return "\n".join(made)
