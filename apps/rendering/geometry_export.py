"""Geometry export: render depth maps, fuse them, write the files."""

from __future__ import annotations

from pathlib import Path

from apps.rendering.config import GeometryConfig
from apps.rendering.frames import render_frames
from apps.rendering.geometry import (
    fuse_mesh,
    fuse_points,
    pixel_footprint,
    source_view_job,
    stack_renderings,
)
from apps.rendering.geometry_files import write_arrays, write_mesh, write_points, write_splats
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import frame_size
from utils.errors import UserError
from utils.files import check_output_file

_MIN_POINTS = 100


def run_export(config: GeometryConfig) -> str:
    """Export the geometry of a scene and return a line for each file."""
    for name in ("out", "mesh", "splats", "arrays"):
        if path := getattr(config, name):
            check_output_file(path, f"--{name}")
    size = frame_size(config)
    scene = open_scene(config.scene, config.model, size)
    job = source_view_job(scene, size or scene.image_size, config.max_renderings)
    store = job.store(config.out)
    render_frames(job, store)
    renderings = stack_renderings(job.path.cameras, store.read_all(len(job)))
    cloud = fuse_points(renderings, config.tolerance, min(config.min_agreeing, len(job) - 1))
    if len(cloud.points) < _MIN_POINTS:
        raise UserError(
            f"{scene.name}: the {len(job)} renderings agree on {len(cloud.points)} points only; "
            "raise --tolerance, lower --min_agreeing, or use a better model"
        )
    write_points(Path(config.out), cloud, scene)
    lines = [f"{config.out}: {len(cloud.points)} points in {scene.unit.name}"]
    if config.mesh:
        mesh = fuse_mesh(renderings, cloud, config.resolution)
        write_mesh(Path(config.mesh), mesh, scene)
        lines.append(f"{config.mesh}: {len(mesh.faces)} triangles")
    if config.splats:
        write_splats(Path(config.splats), cloud, pixel_footprint(renderings), scene)
        lines.append(f"{config.splats}: {len(cloud.points)} Gaussians")
    if config.arrays:
        write_arrays(Path(config.arrays), renderings, scene)
        lines.append(f"{config.arrays}: depths, colours and cameras of {len(job)} renderings")
    store.remove()
    return "\n".join(lines)
