from dataclasses import replace

import torch

from models.depth_prior import DepthPrior, empty_depth_prior
from models.projection import (
    SceneFeatures,
    depth_residuals,
    project_to_sources,
    relative_directions,
    sample_bundles,
)
from models.ray_sampling import DepthPlanes
from utils.cameras import Cameras, Rays, project

NEAR_FAR = torch.tensor([[2.0, 6.0]])
PLANES = DepthPlanes(NEAR_FAR, 40)


def one_ray(point, origin=(0.0, 0.0, -4.0)):
    """A ray from the origin to a point, with t = 1 at the point."""
    start = torch.tensor(origin).reshape(1, 1, 3)
    return Rays(start, torch.tensor(point).reshape(1, 1, 3) - start), torch.ones(1, 1, 1)


def sample(scene, rays, t, pad=0.0):
    """Sample bundles of a single pixel."""
    return sample_bundles(scene, rays, rays, t, PLANES, pad)


def scene_of(cameras, height=32, width=40):
    """Images whose red is x / width and green y / height at every pixel centre."""
    count = cameras.shape[0]
    x = (torch.arange(width) + 0.5) / width
    y = (torch.arange(height) + 0.5) / height
    image = torch.stack(
        [x.expand(height, -1), y[:, None].expand(-1, width), 0 * x.expand(height, -1)]
    )
    images = image.expand(1, count, -1, -1, -1)
    batched = Cameras(cameras.intrinsics[None], cameras.c2w[None])
    maps = images[:, :, :, ::2, ::2].repeat(1, 1, 2, 1, 1)
    return SceneFeatures(images, maps, maps, batched, empty_depth_prior(images, NEAR_FAR))


def test_reads_the_colour_at_the_projected_pixel(make_cameras):
    rays, t = one_ray((0.2, -0.1, 0.0))
    scene = scene_of(make_cameras(1))
    seen = sample(scene, rays, t)
    # u = 40 * 0.2 / 4 + 20 = 22, v = 40 * -0.1 / 4 + 16 = 15.
    torch.testing.assert_close(
        seen.colors.flatten(), torch.tensor([22 / 40, 15 / 32, 0.0]), atol=1e-5, rtol=0
    )
    assert seen.valid.all()
    # Feature maps of any size cover the same field of view.
    low = torch.nn.functional.avg_pool2d(scene.images[0], 4)[None]
    seen = sample(replace(scene, features=low), rays, t)
    torch.testing.assert_close(seen.features, seen.colors, atol=1e-5, rtol=0)


def test_an_absent_view_sees_nothing(make_cameras):
    scene = replace(scene_of(make_cameras(2)), view_mask=torch.tensor([[True, False]]))
    rays, t = one_ray((0.2, -0.1, 0.0))
    assert project_to_sources(scene, rays, t, 0.0).valid.flatten().tolist() == [True, False]


def test_points_behind_or_outside_are_invalid_and_finite(make_cameras):
    scene = scene_of(make_cameras(2))
    for point in [(0.0, 0.0, -9.0), (0.0, 0.0, -4.0), (30.0, 0.0, 0.0), (0.0, -30.0, 0.0)]:
        rays, t = one_ray(point, origin=(0.0, 0.0, -12.0))
        seen = sample(scene, rays, t)
        assert not seen.valid.any(), point
        assert seen.features.isfinite().all() and seen.directions.isfinite().all()


def test_pad_widens_what_counts_as_seen(make_cameras):
    # u = 40 * 2.2 / 4 + 20 = 42: two pixels to the right of a 40 pixel wide image.
    rays, t = one_ray((2.2, 0.0, 0.0))
    scene = scene_of(make_cameras(1))
    assert not sample(scene, rays, t, pad=1.5).valid.any()
    seen = sample(scene, rays, t, pad=2.5)
    assert seen.valid.all()
    torch.testing.assert_close(float(seen.colors[..., 0]), 39.5 / 40)


def oblique_rays():
    """Rays in all directions, from places of their own."""
    generator = torch.Generator().manual_seed(0)
    origins = torch.randn(1, 30, 3, generator=generator) + torch.tensor([0.0, 0.0, -5.0])
    directions = torch.randn(1, 30, 3, generator=generator)
    t = torch.rand(1, 30, 7, generator=generator) * 5
    return Rays(origins, directions), t


def test_points_are_projected_as_the_cameras_say(make_cameras):
    scene = scene_of(make_cameras(3))
    rays, t = oblique_rays()
    where = project_to_sources(scene, rays, t, pad=1.0)
    pixels, depths = project(rays.at(t).flatten(1, 2)[:, None], scene.cameras)
    inside = ((pixels >= -1) & (pixels <= torch.tensor([41.0, 33.0]))).all(-1) & (depths > 1e-6)
    assert torch.equal(where.valid.flatten(2), inside) and inside.any() and not inside.all()
    torch.testing.assert_close(where.depths.flatten(2), depths, atol=1e-4, rtol=1e-4)
    expected = pixels / torch.tensor([20.0, 16.0]) - 1
    torch.testing.assert_close(
        where.grid.flatten(2, 3)[inside], expected[inside], atol=1e-4, rtol=0
    )


def test_relative_directions_by_their_definition(make_cameras):
    cameras = make_cameras(3)
    batched = Cameras(cameras.intrinsics[None], cameras.c2w[None])
    rays, t = oblique_rays()
    source = rays.at(t)[:, None] - batched.centers[:, :, None, None]
    source = torch.nn.functional.normalize(source, dim=-1)
    target = rays.viewdirs[:, None, :, None].expand_as(source)
    difference = torch.nn.functional.normalize(target - source, dim=-1)
    cosine = (source * target).sum(-1, keepdim=True)
    result = relative_directions(rays, t, batched)
    torch.testing.assert_close(result, torch.cat([difference, cosine], -1), atol=1e-3, rtol=0)


def test_relative_direction_vanishes_when_target_is_the_source(make_cameras):
    rays, t = one_ray((0.3, 0.2, 0.0))
    directions = sample(scene_of(make_cameras(1)), rays, t).directions.flatten()
    torch.testing.assert_close(float(directions[3]), 1.0)


def test_half_precision_maps_are_read_at_exact_positions(make_cameras):
    rays, t = one_ray((0.3, 0.2, 0.0))
    scene = scene_of(make_cameras(2), 320, 400)
    plain = sample(scene, rays, t)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = sample(replace(scene, features=scene.features.bfloat16()), rays, t)
    torch.testing.assert_close(plain.colors, mixed.colors)
    # Values are rounded to one in 256; a position in bfloat16 would be off by more than a pixel.
    torch.testing.assert_close(plain.features, mixed.features, atol=1e-3, rtol=0)


def with_prior(scene, depth, confidence=1.0, reliability=1.0):
    shape = (*scene.images.shape[:2], 8, 10)
    return replace(
        scene,
        prior=DepthPrior(
            torch.full(shape, depth), torch.full(shape, confidence), torch.tensor([reliability])
        ),
    )


def residuals_at(scene, z):
    rays, t = one_ray((0.0, 0.0, z - 4.0))
    depth = depth_residuals(scene.prior, project_to_sources(scene, rays, t, 0.0), PLANES)
    return [float(value) for value in (depth.residuals, depth.confidence, depth.visibility)]


def test_depth_residuals_are_signed_and_in_units_of_the_planes(camera):
    scene = with_prior(scene_of(camera), 4.0)
    # Planes are 0.1 apart: 0.3 behind the surface is three planes, squashed to 3 / 4.
    residual, confidence, visibility = residuals_at(scene, 4.3)
    assert abs(residual - 0.75) < 1e-4 and confidence == 1 and visibility < 0.03
    residual, _, visibility = residuals_at(scene, 3.7)
    assert abs(residual + 0.75) < 1e-4 and visibility > 0.99
    # A prior that is unreliable, or none, hides nothing.
    for doubted in (scene_of(camera), with_prior(scene, 4.0, reliability=0.0)):
        assert residuals_at(doubted, 5.0) == [0.0, 0.0, 1.0]
