"""Depth of known shapes against closed forms, through the renderer's own entry."""

import math

import numpy as np
import pytest
import torch

from datasets.procedural.renderer.geometry import quadric_value
from datasets.procedural.renderer.textures import Material
from datasets.procedural.renderer.tracing import trace
from datasets.procedural.worlds.camera_paths import look_at
from datasets.procedural.worlds.scene import QUADRICS, Frame, SceneBuilder, frustum
from utils.cameras import Cameras, Rays, pixel_grid, unproject

SHEET = [0.3, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0]
FRAME = Frame()


def world() -> tuple[SceneBuilder, int]:
    scene = SceneBuilder(shell_box=((-50.0, -50.0, -50.0), (50.0, 50.0, 50.0)))
    return scene, scene.add_material(Material())


def camera_at(*position: float) -> Cameras:
    c2w = look_at(np.array(position), np.zeros(3))
    matrix = torch.tensor([[40.0, 0, 20], [0, 40.0, 16], [0, 0, 1]])
    return Cameras(matrix[None], torch.from_numpy(c2w).float()[None])


PIXELS = pixel_grid(32, 40, torch.device("cpu"))[None]


def rays_of(camera: Cameras) -> Rays:
    points = unproject(PIXELS, torch.ones(1, 32 * 40), camera)
    origins = camera.centers[:, None].expand_as(points)
    return Rays(origins, points - origins)


def depths_of(scene: SceneBuilder, camera: Cameras) -> torch.Tensor:
    tensors = scene.tensors()
    hits = trace(tensors, rays_of(camera))
    return torch.where(tensors.slot_material[0, hits.slot[0]] >= 0, hits.t[0], 0.0)


def sphere_depth(camera: Cameras, center, radius: float) -> torch.Tensor:
    rays = rays_of(camera)
    direction, offset = rays.directions[0], rays.origins[0, 0] - torch.tensor(center)
    a = (direction**2).sum(-1)
    b = (direction * offset).sum(-1)
    disc = b * b - a * ((offset**2).sum() - radius**2)
    return torch.where(disc > 0, (-b - disc.clamp_min(0).sqrt()) / a, 0.0)


@pytest.mark.parametrize("kind", ["convex", "blob"])
def test_a_ball_has_the_depth_of_a_ball(kind):
    (scene, material), center = world(), (0.2, 0.1, -0.1)
    if kind == "convex":
        scene.add_convex(FRAME.moved(center), QUADRICS["ellipsoid"], (0.7, 0.7, 0.7), material)
    else:
        scene.add_blob(FRAME.moved(center), (0.0, 0.0, 0.0), 0.7, material)
    camera = camera_at(0.5, -3.0, 0.8)
    found, expected = depths_of(scene, camera), sphere_depth(camera, center, 0.7)
    both = (found > 0) & (expected > 0)
    assert both.sum() > 100 and ((found > 0) != (expected > 0)).sum() <= 4
    torch.testing.assert_close(found[both], expected[both], rtol=2e-4, atol=2e-4)


def test_a_wall_and_the_floor_of_the_shell_have_the_depth_of_planes():
    scene, material = world()
    scene.add_convex(FRAME.moved((0, 1, 0)), QUADRICS["box"], (20, 0.5, 20), material)
    found = depths_of(scene, camera_at(0.0, -3.0, 0.0))
    torch.testing.assert_close(found, torch.full_like(found, 3.5))
    scene, material = world()
    scene.shell_box = ((-50.0, -50.0, 0.0), (50.0, 50.0, 50.0))
    scene.shell_materials[2] = material
    camera = camera_at(0.0, -3.0, 2.0)
    found = depths_of(scene, camera)
    heights = unproject(PIXELS, found[None], camera)[0, found > 0, 2]
    assert len(heights) > 500
    torch.testing.assert_close(heights, torch.zeros_like(heights), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "quadric", [*QUADRICS.values(), frustum(0.3), frustum(2.5)], ids=[*QUADRICS, "up", "down"]
)
def test_hits_lie_on_shapes_and_normals_face_the_viewer(quadric):
    scene, material = world()
    frame = FRAME.moved((0.1, 0.0, 0.0), (0.4,)).moved(turn=(0.0, 0.2, 0.1))
    scene.add_convex(frame, quadric, (0.6, 0.8, 0.5), material)
    tensors, rays = scene.tensors(), rays_of(camera_at(1.0, -2.5, 1.2))
    hits = trace(tensors, rays)
    on_shape = hits.slot[0] == 0
    assert on_shape.sum() > 50
    affine = tensors.convex_affine[0, 0]
    local = hits.points[0, on_shape] @ affine[:, :3].T + affine[:, 3]
    value = quadric_value(torch.tensor(quadric), *local.unbind(-1))
    assert torch.maximum(local.abs().amax(-1) - 1, value).abs().max() < 2e-3
    normals = hits.normals[0, on_shape]
    assert ((normals * rays.directions[0, on_shape]).sum(-1) <= 1e-5).all()
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(normals)))


def test_a_frustum_is_wide_where_it_shall_be():
    for taper, wide, narrow in ((0.4, -1.0, 1.0), (2.5, 1.0, -1.0)):
        for height, radius in ((wide, 1.0), (narrow, 0.4)):
            rim = torch.tensor([radius, 0.0, height])
            assert quadric_value(torch.tensor(frustum(taper)), *rim).abs() < 1e-6


def test_sheets_have_two_sides_and_bend():
    scene, material = world()
    scene.add_card(FRAME.moved(turn=(0, 0, math.pi / 2)), SHEET, (1.0, 0.8), material)
    front = depths_of(scene, camera_at(0.0, -3.0, 0.0)).reshape(32, 40)
    back = depths_of(scene, camera_at(0.0, 3.0, 0.0)).reshape(32, 40)
    for seen in (front, back):
        assert seen[15, 19] == pytest.approx(3.0, abs=1e-2)
        assert (seen > 0).float().mean() > 0.2
    edge_front, edge_back = front[16][front[16] > 0][0], back[16][back[16] > 0][0]
    assert (edge_front - 3.0) * (edge_back - 3.0) < 0
