"""The parts of fine-tuning, each against a closed form or a slow, obvious reference."""

import pytest
import torch

from models.finetuning.hash_grid import HashGrid
from models.finetuning.optimization import SceneOptimizerConfig
from models.finetuning.residual import ResidualConfig, SceneResidual
from models.finetuning.source_choice import Frames, choose_sources
from models.finetuning.steps import mass_between
from models.finetuning.warp import SceneWarp, fit_warp
from models.sampling import DepthPlanes
from utils.rays import pixel_grid, pixel_rays

SIZE = (32, 40)
NEAR_FAR = torch.tensor([2.0, 8.0])


def test_a_dense_level_interpolates_linearly():
    grid = HashGrid(levels=1, table_bits=10, coarsest=4, finest=4)
    corner = torch.arange(5.0) / 4
    x, y, z = corner[None, None], corner[None, :, None], corner[:, None, None]
    values = (2 * x - y + 3 * z + 1).expand(5, 5, 5).flatten()
    grid.table.data[: len(values)] = values[:, None]
    places = torch.rand(50, 3)
    places[0], places[1] = 0.0, 1.0
    expected = 2 * places[:, 0] - places[:, 1] + 3 * places[:, 2] + 1
    torch.testing.assert_close(grid(places), expected[:, None].expand(-1, 2))


def test_hashed_levels_are_what_the_paper_says():
    grid = HashGrid(levels=2, table_bits=6, coarsest=2, finest=64)
    torch.nn.init.normal_(grid.table)
    place = torch.tensor([[0.3, 0.7, 0.9]])
    scaled = place[0] * 64
    expected = torch.zeros(2)
    for corner in range(8):
        sides = [corner >> axis & 1 for axis in range(3)]
        where = [int(scaled[axis]) + sides[axis] for axis in range(3)]
        weight = 1.0
        for axis in range(3):
            share = scaled[axis] - int(scaled[axis])
            weight = weight * (share if sides[axis] else 1 - share)
        row = (where[0] ^ where[1] * 2654435761 ^ where[2] * 805459861) % 64
        expected += weight * grid.table.data[64 + row]
    torch.testing.assert_close(grid(place)[0, 2:], expected)


@pytest.mark.parametrize("angles", [[-0.3, 0.0, 0.3], [0.0, 1.6, 3.1, 4.7]])
def test_warps_keep_what_cameras_see_inside(arc_cameras, angles):
    cameras = arc_cameras(angles)
    warp = fit_warp(cameras, SIZE, NEAR_FAR, lindisp=True)
    assert warp.one_sided == (len(angles) == 3)
    rays = pixel_rays(cameras, pixel_grid(*SIZE, torch.device("cpu"))[::37])
    depths = torch.linspace(2.2, 7.5, 9).expand(*rays.origins.shape[:2], 9)
    places = warp(rays.at(depths))
    assert places.isfinite().all() and places.min() > -1e-6 and places.max() < 1 + 1e-6
    # Different points stay different.
    assert torch.pdist(places.flatten(0, -2)[::11]).min() > 1e-4


def test_a_residual_says_nothing_at_first_and_then_learns(arc_cameras):
    config = ResidualConfig(
        residual_levels=2, residual_bits=8, residual_finest=32, residual_width=8, guide_cells=4
    )
    residual = SceneResidual(config, SceneWarp(one_sided=False))
    rays = pixel_rays(arc_cameras([0.0, 0.2]), pixel_grid(*SIZE, torch.device("cpu"))[:6])
    points = rays.at(torch.linspace(2, 6, 5).expand(2, 6, 5))
    densities, colors = torch.rand(2, 6, 5) * 30, torch.rand(2, 6, 5, 3)
    densities[0, 0] = 0.0
    samples = residual(points, rays.viewdirs, densities, colors)
    torch.testing.assert_close(samples.densities, densities, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(samples.colors, colors)
    planes = DepthPlanes(NEAR_FAR.expand(2, 2), 7)
    weights = torch.rand(2, 6, 7)
    torch.testing.assert_close(residual.guide(rays, planes, weights), weights)
    loss = samples.densities.sum() + samples.colors.sum() + samples.own_colors.sum()
    loss.backward()
    for name in ("correction.weight", "grid.table"):
        gradient = residual.get_parameter(name).grad
        assert gradient is not None and gradient.isfinite().all()
    assert residual.correction.weight.grad.abs().sum() > 0


def test_sources_are_near_cover_the_picture_and_are_never_the_view_itself(arc_cameras):
    cameras = arc_cameras([-1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0])
    frames, own = Frames(cameras, SIZE), torch.arange(7)
    chosen = choose_sources(frames, frames, NEAR_FAR, 3, own=own)
    assert chosen.shape == (7, 3)
    for view, sources in enumerate(chosen.tolist()):
        assert view not in sources and len(set(sources)) == 3
    assert set(chosen[3, :2].tolist()) == {2, 4}
    # One that is not in the pool may have its double there.
    assert choose_sources(frames, frames, NEAR_FAR, 1)[:, 0].tolist() == list(range(7))


def test_sources_look_the_same_way(arc_cameras):
    """A camera at the same place that looks away is no source."""
    cameras = arc_cameras([0.0, 0.3])
    away = arc_cameras([0.01])
    away.c2w[:, :3, 0] *= -1
    away.c2w[:, :3, 2] *= -1
    pool = Frames(
        type(cameras)(
            torch.cat([away.intrinsics, cameras.intrinsics[1:]]),
            torch.cat([away.c2w, cameras.c2w[1:]]),
        ),
        SIZE,
    )
    assert choose_sources(Frames(cameras[:1], SIZE), pool, NEAR_FAR, 1).item() == 1


def test_mass_is_spread_evenly_and_none_is_lost():
    edges = torch.tensor([[[0.0, 0.1, 0.5, 1.0]]])
    weights = torch.tensor([[[0.2, 0.4, 0.3]]])
    borders = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]])
    expected = torch.tensor([[[0.2 + 0.15, 0.25, 0.15, 0.15]]])
    torch.testing.assert_close(mass_between(edges, weights, borders), expected)


def test_learning_rates_rise_and_fall():
    config = SceneOptimizerConfig(num_steps=100, warmup_steps=10, lrate_end=0.1)
    factors = [config.factor(step) for step in range(101)]
    assert factors[0] < factors[5] < factors[10] == 1.0
    assert factors[100] == pytest.approx(0.1)
    assert sorted(factors[10:], reverse=True) == factors[10:]
