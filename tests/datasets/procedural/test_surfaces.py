"""Depth of known bodies against closed forms, through the renderer's own entry."""

import math

import numpy as np
import pytest
import torch

from datasets.procedural.marching import distance
from datasets.procedural.materials import make_material
from datasets.procedural.paths import look_at
from datasets.procedural.placement import Frame, turned
from datasets.procedural.plants import SHEET
from datasets.procedural.render import depth_along, one_scene
from datasets.procedural.scene import QUADRICS, SceneBuilder
from datasets.procedural.tables import stack_scenes
from datasets.procedural.tracing import trace
from utils.cameras import Cameras, unproject


def world() -> tuple[SceneBuilder, int]:
    scene = SceneBuilder()
    scene.shell_box = ((-50.0, -50.0, -50.0), (50.0, 50.0, 50.0))
    return scene, scene.add_material(make_material("plain", (0.5, 0.5, 0.5)))


def camera_at(position: tuple[float, float, float], target=(0.0, 0.0, 0.0)) -> Cameras:
    c2w = look_at(np.array(position), np.array(target), 0.0)
    matrix = torch.tensor([[40.0, 0, 20], [0, 40.0, 16], [0, 0, 1]])
    return Cameras(matrix[None], torch.from_numpy(c2w).float()[None])


def pixel_grid() -> torch.Tensor:
    row, column = torch.meshgrid(torch.arange(32), torch.arange(40), indexing="ij")
    return (torch.stack([column, row], -1).reshape(1, -1, 2) + 0.5).float()


def depths_of(scene: SceneBuilder, camera: Cameras) -> torch.Tensor:
    return depth_along(one_scene(stack_scenes([scene]), 0), camera, pixel_grid(), 60)[0]


def sphere_depth(camera: Cameras, center, radius: float) -> torch.Tensor:
    far = unproject(pixel_grid(), torch.ones(1, 32 * 40), camera)[0]
    origin = camera.centers[0]
    direction = far - origin
    offset = origin - torch.tensor(center)
    a = (direction**2).sum(-1)
    b = (direction * offset).sum(-1)
    disc = b * b - a * ((offset**2).sum() - radius**2)
    return torch.where(disc > 0, (-b - disc.clamp_min(0).sqrt()) / a, 0.0)


@pytest.mark.parametrize("kind", ["convex", "marched"])
def test_a_ball_has_the_depth_of_a_ball(kind):
    scene, material = world()
    center = (0.2, 0.1, -0.1)
    if kind == "convex":
        scene.add_convex(Frame(), "ellipsoid", center, (0.7, 0.7, 0.7), material)
    else:
        scene.add_blob(Frame(), center, (0.0, 0.0, 0.0), 0.7, material)
    camera = camera_at((0.5, -3.0, 0.8))
    found, expected = depths_of(scene, camera), sphere_depth(camera, center, 0.7)
    both = (found > 0) & (expected > 0)
    assert both.sum() > 100 and ((found > 0) != (expected > 0)).sum() <= 4
    torch.testing.assert_close(found[both], expected[both], rtol=2e-4, atol=2e-4)


def test_a_wall_has_the_depth_of_a_plane():
    scene, material = world()
    scene.add_convex(Frame(), "box", (0, 1.0, 0), (20, 0.5, 20), material)
    found = depths_of(scene, camera_at((0.0, -3.0, 0.0)))
    torch.testing.assert_close(found, torch.full_like(found, 3.5))


def test_the_floor_of_the_shell_is_a_plane():
    scene, material = world()
    scene.shell_box = ((-50.0, -50.0, 0.0), (50.0, 50.0, 50.0))
    scene.shell_materials[2] = material
    camera = camera_at((0.0, -3.0, 2.0))
    found = depths_of(scene, camera)
    heights = unproject(pixel_grid(), found[None], camera)[0, :, 2]
    assert (found > 0).sum() > 500
    torch.testing.assert_close(
        heights[found > 0], torch.zeros_like(heights[found > 0]), atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("shape", sorted(QUADRICS))
def test_hits_lie_on_bodies_and_normals_face_the_viewer(shape):
    scene, material = world()
    frame = Frame((0.1, 0.0, 0.0), 0.4)
    scene.add_convex(frame, shape, (0, 0, 0), (0.6, 0.8, 0.5), material, turned(0, 0.2, 0.1))
    tables = one_scene(stack_scenes([scene]), 0)
    camera = camera_at((1.0, -2.5, 1.2))
    points = unproject(pixel_grid(), torch.ones(1, 32 * 40), camera)
    origins = camera.centers[:, None].expand_as(points)
    hits = trace(tables, origins, points - origins, 4)
    on_body = hits.slot[0] == 0
    assert on_body.sum() > 50
    affine = tables.convex_affine[0, 0]
    local = hits.points[0, on_body] @ affine[:, :3].T + affine[:, 3]
    x, y, z = local.unbind(-1)
    ax, ay, az, b, c = QUADRICS[shape]
    value = ax * x * x + ay * y * y + az * z * z + b * z + c
    outside = torch.maximum(local.abs().amax(-1) - 1, value)
    assert outside.abs().max() < 2e-3
    facing = (hits.normals * (points - origins)).sum(-1)[0, on_body]
    assert (facing <= 1e-5).all()
    lengths = hits.normals[0, on_body].norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_sheets_have_two_sides_and_bend():
    scene, material = world()
    shape = list(SHEET)
    shape[0] = 0.3
    turn = turned(0, 0, math.pi / 2)
    scene.add_card(Frame(), (0, 0, 0), (1.0, 0.8), shape, material, turn)
    front = depths_of(scene, camera_at((0.0, -3.0, 0.0))).reshape(32, 40)
    back = depths_of(scene, camera_at((0.0, 3.0, 0.0))).reshape(32, 40)
    for seen in (front, back):
        assert seen[15, 19] == pytest.approx(3.0, abs=1e-2)
        assert (seen > 0).float().mean() > 0.2
    edge_front, edge_back = front[16][front[16] > 0][0], back[16][back[16] > 0][0]
    assert (edge_front - 3.0) * (edge_back - 3.0) < 0


def test_a_height_field_is_met_where_it_is():
    scene, material = world()
    scene.shell_box = ((-5.0, -5.0, -1.0), (5.0, 5.0, 5.0))
    scene.relief_material = material
    scene.relief_waves = [[2.0, 0.0, 0.3, 0.2], [0.0, 1.5, 1.0, 0.1]]
    camera = camera_at((0.0, -4.0, 2.0))
    tables = one_scene(stack_scenes([scene]), 0)
    found = depth_along(tables, camera, pixel_grid(), 80)[0]
    points = unproject(pixel_grid(), found[None], camera)
    gaps = distance(tables, points)[0][found > 0]
    assert (found > 0).sum() > 300
    assert gaps.abs().quantile(0.98) < 5e-3


def test_a_batch_traces_as_each_of_its_scenes():
    scenes = []
    for shift in (0.0, 0.3):
        scene, material = world()
        scene.add_convex(Frame(), "cone", (shift, 0, 0), (0.5, 0.5, 0.5), material)
        scene.add_blob(Frame(), (-shift, 0.5, 0.2), (0.2, 0.1, 0.3), 0.1, material)
        scenes.append(scene)
    camera = camera_at((0.5, -2.5, 0.8))
    both = Cameras(camera.intrinsics.expand(2, 3, 3), camera.c2w.expand(2, 4, 4))
    together = depth_along(stack_scenes(scenes), both, pixel_grid().expand(2, -1, -1), 60)
    for scene, found in zip(scenes, together, strict=True):
        torch.testing.assert_close(found, depths_of(scene, camera), rtol=1e-3, atol=1e-3)
