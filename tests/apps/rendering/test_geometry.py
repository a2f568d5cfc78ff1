"""Points and meshes from depths, against a sphere that is known exactly."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from commands import status_of

from apps import export_geometry
from apps.rendering.geometry import (
    fuse_mesh,
    fuse_points,
    pixel_footprint,
    source_view_job,
)
from apps.rendering.geometry_files import (
    Renderings,
    read_points,
    write_arrays,
    write_mesh,
    write_points,
    write_splats,
)
from utils.camera_rig import look_at
from utils.cameras import Cameras, LengthUnit, pixel_grid, pixel_rays
from utils.errors import UserError

SIZE = (48, 64)


@pytest.fixture(scope="module")
def sphere():
    """A unit sphere, its colour its normal, from ten directions."""
    angles = torch.arange(10, dtype=torch.float64) * (2 * math.pi / 10)
    centers = torch.stack([4 * angles.cos(), 4 * angles.sin(), 1.2 * (3 * angles).sin()], -1)
    c2w = look_at(centers, 0 * centers[0], torch.tensor([0.0, 0, 1]).double()).float()
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


@pytest.fixture(scope="module")
def cloud(sphere):
    return fuse_points(sphere, 0.01, 2)


def test_points_lie_on_the_sphere_in_its_colours(sphere, cloud):
    assert len(cloud.points) > 1500
    assert (cloud.points.norm(dim=-1) - 1).abs().max() < 0.01
    assert (cloud.colors - (0.5 + 0.5 * cloud.points)).abs().max() < 0.1
    cells = (cloud.points / pixel_footprint(sphere)).floor().long()
    assert len(cells) <= 1.05 * len(cells.unique(dim=0)) + 50


def test_what_no_other_rendering_confirms_is_left_out(sphere):
    depth = sphere.depth.clone()
    depth[3] *= 0.9
    wrong = replace(sphere, depth=depth)
    assert (fuse_points(wrong, 0.01, 2).points.norm(dim=-1) - 1).abs().max() < 0.02
    assert fuse_points(wrong, 0.01, 0).points.norm(dim=-1).max() > 1.2


def test_of_nothing_there_are_no_points_and_no_mesh(sphere, cloud):
    nothing = replace(sphere, solid=torch.zeros_like(sphere.solid))
    assert not len(fuse_points(nothing, 0.01, 0).points)
    assert not len(fuse_mesh(nothing, cloud, 20).faces)


def test_mesh_is_the_sphere_and_faces_outwards(sphere, cloud):
    mesh = fuse_mesh(sphere, cloud, 40)
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert len(mesh.faces) > 1000 and np.abs(radii - 1).mean() < 0.02
    outwards = (mesh.face_normals * mesh.triangles_center).sum(-1)
    assert (outwards > 0.8).mean() > 0.98
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255
    assert np.abs(colours - (0.5 + 0.5 * mesh.vertices)).mean() < 0.05


def test_files_read_back_in_their_unit(sphere, cloud, painted_scene, tmp_path):
    object.__setattr__(painted_scene, "unit", LengthUnit("mm", 200.0))
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


def test_files_of_a_scene_in_map_coordinates_are_exact(sphere, cloud, painted_scene, tmp_path):
    origin = torch.tensor([543210.25, 5432109.5, 120.0], dtype=torch.float64)
    object.__setattr__(painted_scene, "origin", origin)
    write_points(tmp_path / "points.ply", cloud, painted_scene)
    read = read_points(tmp_path / "points.ply").points
    torch.testing.assert_close(read - origin, cloud.points.double(), atol=1e-6, rtol=0)
    mesh = fuse_mesh(sphere, cloud, 24)
    write_mesh(tmp_path / "mesh.ply", mesh, painted_scene)
    again = trimesh.load(tmp_path / "mesh.ply", process=False)
    np.testing.assert_allclose(again.vertices - origin.numpy(), mesh.vertices, atol=1e-6)
    write_arrays(tmp_path / "views.npz", sphere, painted_scene)
    arrays = np.load(tmp_path / "views.npz")
    np.testing.assert_allclose(
        arrays["c2w"][:, :3, 3] - origin.numpy(), sphere.cameras.centers, atol=1e-6
    )
    assert arrays["rgb"].shape == (10, *SIZE, 3) and arrays["rgb"].dtype == np.uint8
    assert ((arrays["depth"] > 0) == sphere.solid.numpy()).all()


def test_a_glb_is_centred_and_faces_z(sphere, cloud, painted_scene, tmp_path):
    """The cameras of the painted scene look along z, with y down."""
    mesh = fuse_mesh(sphere, cloud, 24)
    mesh.apply_translation([3.0, 5.0, -7.0])
    write_mesh(tmp_path / "mesh.glb", mesh, painted_scene)
    again = trimesh.load(tmp_path / "mesh.glb", force="mesh")
    assert np.abs(again.bounds.mean(0)).max() < 0.02
    # Blue is least on the side that the cameras see, which is the front.
    front = again.vertices[np.asarray(again.visual.vertex_colors)[:, 2].argmin()]
    assert front[2] > 0.9


def test_splats_have_the_layout_that_viewers_read(cloud, painted_scene, tmp_path):
    object.__setattr__(painted_scene, "unit", LengthUnit("mm", 200.0))
    write_splats(tmp_path / "splats.ply", cloud, 0.05, painted_scene)
    header, data = (tmp_path / "splats.ply").read_bytes().split(b"end_header\n", 1)
    fields = [line.split()[-1].decode() for line in header.splitlines() if b"property" in line]
    rows = dict(zip(fields, np.frombuffer(data, "<f4").reshape(-1, 62).T, strict=True))
    np.testing.assert_allclose(rows["x"], cloud.points[:, 0].numpy() * 200, rtol=1e-5)
    colour = 0.5 + 0.28209479 * rows["f_dc_1"]
    np.testing.assert_allclose(colour, cloud.colors[:, 1].numpy(), atol=1e-5)
    assert np.exp(rows["scale_2"][0]) == pytest.approx(0.6 * 0.05 * 200, rel=1e-4)
    assert 0.5 < 1 / (1 + np.exp(-rows["opacity"][0])) < 1
    assert (rows["rot_0"] == 1).all() and not rows["f_rest_44"].any()


def test_each_source_camera_is_rendered_from_its_nearest_views(painted_scene):
    job = source_view_job(painted_scene, (12, 16), 4)
    assert len(job) == 4 and [one.source_indices for (one,) in job.sources][0] == (0, 1)
    torch.testing.assert_close(job.path.cameras.c2w[-1], painted_scene.cameras.c2w[-1])
    assert job.path.cameras.intrinsics[0, 0, 0] == 15


@pytest.fixture
def export(tiny_checkpoint, tiny_dtu):
    def run(*argv):
        flags = ["--ckpt", tiny_checkpoint, "--datadir", tiny_dtu, "--device", "cpu"]
        flags += ["--size", 32, 40, "--max_renderings", 3]
        return status_of(export_geometry.main, *flags, *argv)

    return run


def test_the_script_writes_points_and_a_mesh(export, tmp_path):
    files = ["--out", tmp_path / "points.ply", "--mesh", tmp_path / "mesh.glb"]
    files += ["--splats", tmp_path / "splats.ply", "--arrays", tmp_path / "views.npz"]
    # Random weights agree on nothing.
    assert export(*files, "--tolerance", 0.9, "--min_agreeing", 0, "--resolution", 24) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        *("mesh.glb", "points.ply", "splats.ply", "views.npz")
    }
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
def test_refusals_name_the_value(export, assert_refused, tmp_path, argv, words):
    assert_refused(export("--out", tmp_path / "points.ply", *argv), words)
    assert not list(tmp_path.glob("*.ply"))


def test_only_point_clouds_are_read_whatever_their_name(tmp_path):
    # Trimesh would follow what other kinds of files refer to.
    path = tmp_path / "points.gltf"
    path.write_text('{"asset": {"version": "2.0"}, "buffers": [{"uri": "../secret"}]}')
    with pytest.raises(UserError, match=r"points\.gltf: cannot be read as a coloured point cloud"):
        read_points(path)


def test_a_damaged_point_cloud_is_one_error(tmp_path):
    # Trimesh raises UnboundLocalError.
    path = tmp_path / "points.ply"
    elements = b"element vertex 2\nproperty format\nelement vertey 2\nproperty float x\n"
    path.write_bytes(
        b"ply\nformat binary_little_endian 1.0\n" + elements + b"end_header\n" + bytes(8)
    )
    with pytest.raises(UserError, match=r"points\.ply: cannot be read as a coloured point cloud"):
        read_points(path)
