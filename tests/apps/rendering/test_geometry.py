"""Points and meshes from depths, against a sphere that is known exactly."""

import math

import numpy as np
import pytest
import torch
import trimesh

from apps import export_geometry
from apps.rendering.geometry import (
    Renderings,
    fuse_mesh,
    fuse_points,
    pixel_footprint,
    source_job,
    write_mesh,
    write_points,
)
from utils.camera_rig import look_at
from utils.cameras import Cameras, LengthUnit, pixel_grid, pixel_rays

SIZE = (48, 64)


@pytest.fixture
def sphere():
    """A unit sphere, its colour its normal, from ten directions."""
    azimuths = torch.arange(10, dtype=torch.float64) * (2 * math.pi / 10)
    heights = 1.2 * torch.sin(3 * azimuths)
    centers = torch.stack([4 * azimuths.cos(), 4 * azimuths.sin(), heights], -1)
    up = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    c2w = look_at(centers, torch.zeros(3, dtype=torch.float64), up).float()
    intrinsics = torch.tensor([[70.0, 0, 32], [0, 70, 24], [0, 0, 1]]).expand(10, 3, 3)
    cameras = Cameras(intrinsics, c2w)
    rays = pixel_rays(cameras, pixel_grid(*SIZE, torch.device("cpu")).expand(10, -1, 2))
    o, d = rays.origins, rays.directions
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    root = b * b - a * c
    depth = (-b - root.clamp_min(0).sqrt()) / a
    normals = o + depth[..., None] * d
    rgb = (0.5 + 0.5 * normals).clamp(0, 1).transpose(1, 2).unflatten(-1, SIZE)
    return Renderings(cameras, rgb, depth.unflatten(-1, SIZE), (root > 0).unflatten(-1, SIZE))


def test_points_lie_on_the_sphere_in_its_colours(sphere):
    cloud = fuse_points(sphere, 0.01, 2)
    assert len(cloud.points) > 1500
    assert (cloud.points.norm(dim=-1) - 1).abs().max() < 0.01
    assert (cloud.colors - (0.5 + 0.5 * cloud.points)).abs().max() < 0.1
    cells = (cloud.points / pixel_footprint(sphere)).floor().long()
    assert len(cells) <= 1.05 * len(cells.unique(dim=0)) + 50


def test_what_no_other_rendering_confirms_is_left_out(sphere):
    depth = sphere.depth.clone()
    depth[3] *= 0.9
    wrong = Renderings(sphere.cameras, sphere.rgb, depth, sphere.solid)
    assert (fuse_points(wrong, 0.01, 2).points.norm(dim=-1) - 1).abs().max() < 0.02
    everything = fuse_points(wrong, 0.01, 0).points.norm(dim=-1)
    assert everything.max() > 1.2
    nothing = Renderings(sphere.cameras, sphere.rgb, depth, torch.zeros_like(sphere.solid))
    assert not len(fuse_points(nothing, 0.01, 0).points)


def test_mesh_is_the_sphere_and_faces_outwards(sphere):
    mesh = fuse_mesh(sphere, fuse_points(sphere, 0.01, 2), 40)
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert len(mesh.faces) > 1000 and np.abs(radii - 1).mean() < 0.02
    outwards = (mesh.face_normals * mesh.triangles_center).sum(-1)
    assert (outwards > 0.8).mean() > 0.98
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255
    assert np.abs(colours - (0.5 + 0.5 * mesh.vertices)).mean() < 0.05


def test_mesh_of_nothing_is_empty(sphere):
    hidden = Renderings(sphere.cameras, sphere.rgb, sphere.depth, torch.zeros_like(sphere.solid))
    assert not len(fuse_mesh(hidden, fuse_points(sphere, 0.01, 2), 20).faces)


def test_files_read_back_in_their_unit(sphere, painted_scene, tmp_path):
    object.__setattr__(painted_scene, "unit", LengthUnit("mm", 200.0))
    cloud = fuse_points(sphere, 0.01, 2)
    write_points(tmp_path / "points.ply", cloud, painted_scene)
    points = trimesh.load(tmp_path / "points.ply")
    np.testing.assert_allclose(points.vertices, cloud.points.numpy() * 200, atol=1e-2)
    assert np.abs(points.colors[:, :3] - cloud.colors.numpy() * 255).max() < 1.01
    mesh = fuse_mesh(sphere, cloud, 24)
    for name in ("mesh.ply", "mesh.glb"):
        write_mesh(tmp_path / name, mesh, painted_scene)
        again = trimesh.load(tmp_path / name, force="mesh")
        assert len(again.faces) == len(mesh.faces)
        assert abs(np.linalg.norm(again.vertices, axis=1).mean() - 200) < 8
    # The painted scene's cameras are upright with y down; glTF has y up.
    top = again.vertices[np.asarray(again.visual.vertex_colors)[:, 1].argmin()]
    assert top[1] > 150


def test_each_source_camera_is_rendered_from_its_nearest_views(painted_scene):
    job = source_job(painted_scene, (12, 16), 4)
    assert len(job) == 4 and [one.source_indices for (one,) in job.sources][0] == (0, 1)
    torch.testing.assert_close(job.path.cameras.c2w[-1], painted_scene.cameras.c2w[-1])
    assert job.path.cameras.intrinsics[0, 0, 0] == 15


@pytest.fixture
def export(tiny_checkpoint, tiny_dtu):
    def run(*argv):
        flags = ["--ckpt", tiny_checkpoint, "--datadir", tiny_dtu, "--device", "cpu"]
        flags += ["--size", 32, 40, "--max_renderings", 3]
        try:
            return export_geometry.main([str(text) for text in [*flags, *argv]])
        except SystemExit as stop:
            return stop.code

    return run


def test_the_script_writes_points_and_a_mesh(export, tmp_path):
    files = ["--out", tmp_path / "points.ply", "--mesh", tmp_path / "mesh.glb"]
    # Random weights agree on nothing.
    assert export(*files, "--tolerance", 0.9, "--min_agreeing", 0, "--resolution", 24) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["mesh.glb", "points.ply"]
    depths = np.linalg.norm(trimesh.load(tmp_path / "points.ply").vertices, axis=1)
    assert 10 < np.median(depths) < 1500, "millimetres"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--out", "points.obj"], ["points.obj", ".ply"]),
        (["--mesh", "mesh.stl"], ["mesh.stl", ".glb"]),
        (["--tolerance", "1e-9"], ["agree on", "--tolerance"]),
        (["--resolution", "4"], ["resolution"]),
    ],
)
def test_refusals_name_the_value(export, capsys, caplog, tmp_path, argv, words):
    status = export("--out", tmp_path / "points.ply", *argv)
    said = capsys.readouterr().err + caplog.text
    assert status == 2 and not list(tmp_path.glob("*.ply"))
    assert all(word in said for word in words), said
