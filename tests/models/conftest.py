import pytest
import torch

from datasets.posed_scene import PosedScene, ViewPixels
from datasets.views import Views
from utils.cameras import Cameras


def ring_cameras(count, distance=4.0, size=(32, 40)):
    """Cameras side by side on the x axis, all looking along z."""
    height, width = size
    intrinsics = torch.tensor([[40.0, 0, width / 2], [0, 40.0, height / 2], [0, 0, 1]])
    c2w = torch.eye(4).repeat(count, 1, 1)
    c2w[:, 0, 3] = torch.linspace(-0.4, 0.4, count) if count > 1 else 0
    c2w[:, 2, 3] = -distance
    return Cameras(intrinsics.expand(count, 3, 3), c2w)


def random_views(batch, count, size=(32, 40), seed=0):
    height, width = size
    generator = torch.Generator().manual_seed(seed)
    cameras = ring_cameras(count, size=size)
    return Views(
        torch.rand(batch, count, 3, height, width, generator=generator),
        Cameras(
            cameras.intrinsics.expand(batch, -1, -1, -1), cameras.c2w.expand(batch, -1, -1, -1)
        ),
        torch.zeros(batch, count, height, width),
        torch.ones(batch, count, height, width, dtype=torch.bool),
    )


@pytest.fixture
def make_views():
    return random_views


@pytest.fixture
def make_cameras():
    return ring_cameras


class DrawnScene:
    """Views of one scene that know nothing but their own number."""

    def __call__(self, view):
        image = torch.rand(32, 40, 3, generator=torch.Generator().manual_seed(view))
        depth = torch.full((32, 40), 3.0)
        depth[:4] = 0
        return ViewPixels(
            image.numpy(), depth.numpy(), torch.ones(32, 40, dtype=torch.bool).numpy()
        )


@pytest.fixture
def drawn_scene(make_cameras):
    """Six views side by side, on the x axis."""
    ids = tuple(range(6))
    return PosedScene(
        name="drawn",
        view_ids=ids,
        view_names=tuple(map(str, ids)),
        cameras=make_cameras(6),
        near_far=torch.tensor([2.0, 6.0]),
        image_size=(32, 40),
        read_view=DrawnScene(),
    )
