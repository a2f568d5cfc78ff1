from dataclasses import replace

import pytest
import torch

from models.cost_volume import FINE_CELLS, CostVolume, UNet3D, pool_residuals, volume_grid
from models.depth_prior import DepthPrior
from models.projection import DepthResiduals
from models.ray_sampling import DepthPlanes

NEAR_FAR = torch.tensor([[2.0, 6.0]])
SIZE = (33, 40)


def build_volume(model, scene, camera, near_far=NEAR_FAR):
    with torch.no_grad():
        return model.build_cost_volume(scene, camera, near_far, SIZE)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((33, 40), (9, 10)), ((240, 320), (60, 80)), ((300, 400), (60, 80)), ((640, 960), (80, 120))],
)
def test_eighty_cells_of_four_to_eight_pixels(size, grid):
    assert volume_grid(size) == grid


@pytest.mark.parametrize(
    ("size", "grid"), [((240, 320), (60, 80)), ((640, 960), (160, 240)), ((800, 1200), (160, 240))]
)
def test_a_fine_grid_has_up_to_240_cells(size, grid):
    assert volume_grid(size, FINE_CELLS) == grid


def test_covers_the_image(tiny_model, make_views, make_cameras):
    scene = tiny_model.encode(make_views(1, 3), NEAR_FAR)
    volume = build_volume(tiny_model, scene, make_cameras(1))
    grid = volume_grid(SIZE)
    assert volume.weights.shape == (1, 12, *grid) and volume.features.shape == (1, 4, 12, *grid)
    assert (volume.weights >= 0).all() and (volume.weights.sum(1) < 1).all()


def test_order_of_sources_does_not_matter(tiny_model, make_views, make_cameras):
    scene = tiny_model.encode(make_views(1, 4), NEAR_FAR)
    order = [2, 0, 3, 1]
    prior = DepthPrior(
        scene.prior.depth[:, order], scene.prior.confidence[:, order], scene.prior.reliability
    )
    other = replace(
        scene,
        images=scene.images[:, order],
        features=scene.features[:, order],
        coarse_features=scene.coarse_features[:, order],
        cameras=scene.cameras[:, order],
        prior=prior,
    )
    one, two = (build_volume(tiny_model, s, make_cameras(1)) for s in (scene, other))
    torch.testing.assert_close(one.weights, two.weights, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(one.features, two.features, atol=1e-4, rtol=1e-3)


def test_unit_of_length_does_not_matter(tiny_model, make_views, make_cameras):
    scene = tiny_model.encode(make_views(1, 3), NEAR_FAR)
    factor = 250.0
    prior = replace(scene.prior, depth=scene.prior.depth * factor)
    large = replace(scene, cameras=scene.cameras.scaled_world(factor), prior=prior)
    one = build_volume(tiny_model, scene, make_cameras(1))
    two = build_volume(tiny_model, large, make_cameras(1).scaled_world(factor), NEAR_FAR * factor)
    torch.testing.assert_close(one.weights, two.weights, atol=1e-4, rtol=1e-3)


def volume_of(function, planes, camera):
    """A volume whose features are a function of column, row and coordinate, each from 0 to 1."""
    rows, columns = 4, 5
    z = ((torch.arange(planes.count) + 0.5) / planes.count)[:, None, None]
    y = ((torch.arange(rows) + 0.5) / rows)[:, None]
    x = (torch.arange(columns) + 0.5) / columns
    values = function(x, y, z).expand(planes.count, rows, columns)[None]
    return CostVolume(camera, (32, 40), planes, values, values[:, None])


@pytest.mark.parametrize("lindisp", [False, True])
def test_reads_linear_functions_exactly(make_cameras, lindisp):
    planes = DepthPlanes(NEAR_FAR, 10, lindisp)
    volume = volume_of(lambda x, y, z: x + 2 * y + 4 * z, planes, make_cameras(1))
    pixels = torch.tensor([[[10.0, 9.0], [31.0, 20.5]]])
    coordinates = torch.tensor([[[0.2, 0.7], [0.5, 0.9]]])
    read = volume.read_features(pixels, planes.depths(coordinates))[..., 0]
    place = pixels / torch.tensor([40.0, 32.0])
    expected = (place[..., 0] + 2 * place[..., 1])[..., None] + 4 * coordinates
    torch.testing.assert_close(read, expected, atol=1e-4, rtol=0)
    weights = volume.plane_weights(pixels)
    assert weights.shape == (1, 2, 10)
    torch.testing.assert_close(weights[0, 0, 3], place[0, 0] @ torch.tensor([1.0, 2.0]) + 1.4)


def test_pooled_residuals_give_the_nearest_confident_surface():
    def of_views(numbers):
        return torch.tensor(numbers).reshape(1, -1, 1, 1)

    depth = DepthResiduals(
        of_views([-0.5, 0.1, 0.0]), of_views([1.0, 0.8, 1.0]), of_views([1.0, 1.0, 1.0])
    )
    valid = of_views([True, True, False])
    mean, nearest, confidence = pool_residuals(depth, valid).flatten().tolist()
    assert mean == pytest.approx((-0.5 + 0.08) / 2)
    assert nearest == pytest.approx(1 - 0.8 * 0.9)
    assert confidence == pytest.approx(0.9)


def test_pooled_residuals_are_neutral_without_a_prior():
    nothing = torch.zeros(1, 2, 1, 1)
    depth = DepthResiduals(nothing, nothing, nothing + 1)
    valid = torch.ones(1, 2, 1, 1, dtype=torch.bool)
    assert pool_residuals(depth, valid).flatten().tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("size", [(48, 7, 9), (3, 1, 1), (10, 64, 5)])
def test_network_takes_any_size(size):
    network = UNet3D(5, (8, 8, 16), 3)
    assert network(torch.randn(2, 5, *size)).shape == (2, 3, *size)


def test_neighbouring_rays_are_judged_together():
    network = UNet3D(2, (8, 8, 16), 1).eval()
    volume = torch.randn(1, 2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    volume.requires_grad_()
    network(volume)[0, 0, 4, 4, 4].backward()
    assert volume.grad[0, :, :, 2, 4].abs().sum() > 0
