import pytest
import torch

from models.cost_volume import CostVolume, pool_residuals, volume_grid
from models.projection import DepthResiduals
from models.ray_sampling import DepthPlanes
from models.unet3d import UNet3D

NEAR_FAR = torch.tensor([[2.0, 6.0]])
SIZE = (33, 40)


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((33, 40), (9, 10)),
        ((240, 320), (60, 80)),
        ((300, 400), (60, 80)),
        ((640, 960), (80, 120)),
        ((800, 1200), (100, 150)),
    ],
)
def test_grids_have_cells_of_four_to_eight_pixels(size, grid):
    assert volume_grid(size) == grid


@torch.no_grad()
def test_covers_the_image(tiny_model, encoded, camera):
    volume = tiny_model.build_cost_volume(encoded, camera, NEAR_FAR, SIZE)
    assert volume.weights.shape == (1, 12, 9, 10) and volume.features.shape == (1, 4, 12, 9, 10)
    assert (volume.weights >= 0).all() and (volume.weights.sum(1) < 1).all()


@torch.no_grad()
def test_parts_for_the_cache_of_a_cpu_change_nothing(tiny_model, encoded, camera, monkeypatch):
    def rendered():
        return tiny_model.render_images(encoded, camera, NEAR_FAR, SIZE)

    whole = rendered()
    # 13 rays of a volume with 12 planes: the last part is smaller.
    monkeypatch.setattr("models.cost_volume.CPU_POINTS", 13 * 12)
    torch.testing.assert_close(rendered(), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lindisp", [False, True])
def test_reads_linear_functions_exactly(camera, lindisp):
    planes = DepthPlanes(NEAR_FAR, 10, lindisp)
    # Features are a function of column, row and coordinate, each from 0 to 1.
    z, y, x = ((torch.arange(count) + 0.5) / count for count in (10, 4, 5))
    values = (x + 2 * y[:, None] + 4 * z[:, None, None])[None]
    volume = CostVolume(camera, (32, 40), planes, values, values[:, None])
    pixels = torch.tensor([[[10.0, 9.0], [31.0, 20.5]]])
    coordinates = torch.tensor([[[0.2, 0.7], [0.5, 0.9]]])
    read = volume.read_features(pixels, planes.depths(coordinates))[..., 0]
    place = pixels / torch.tensor([40.0, 32.0])
    expected = (place[..., 0] + 2 * place[..., 1])[..., None] + 4 * coordinates
    torch.testing.assert_close(read, expected, atol=1e-4, rtol=0)
    weights = volume.plane_weights(pixels)
    assert weights.shape == (1, 2, 10)
    torch.testing.assert_close(weights[0, 0, 3], place[0, 0] @ torch.tensor([1.0, 2.0]) + 1.4)


@pytest.mark.parametrize(
    ("residuals", "confidence", "valid", "expected"),
    [
        # The mean, how near the nearest confident surface is not, and the confidence.
        ([-0.5, 0.1, 0.0], [1.0, 0.8, 1.0], [1, 1, 0], [(-0.5 + 0.08) / 2, 1 - 0.8 * 0.9, 0.9]),
        ([0.0, 0.0], [0.0, 0.0], [1, 1], [0, 1, 0]),
    ],
)
def test_pooled_residuals(residuals, confidence, valid, expected):
    residuals, confidence, valid = (
        torch.tensor(values).reshape(1, -1, 1, 1) for values in (residuals, confidence, valid)
    )
    depth = DepthResiduals(residuals, confidence, torch.ones_like(residuals))
    assert pool_residuals(depth, valid.bool()).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("size", [(48, 7, 9), (3, 1, 1), (10, 64, 5)])
def test_network_takes_any_size(size):
    network = UNet3D((8, 8, 16), 3)
    assert network(torch.randn(2, 8, *size)).shape == (2, 3, *size)


def test_neighbouring_rays_are_judged_together():
    network = UNet3D((8, 8, 16), 1).eval()
    volume = torch.randn(1, 8, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    volume.requires_grad_()
    network(volume)[0, 0, 4, 4, 4].backward()
    assert volume.grad[0, :, :, 2, 4].abs().sum() > 0
