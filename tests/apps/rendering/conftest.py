from dataclasses import dataclass, field, replace

import pytest
import torch

from models.scenes.renderable_scene import RenderableScene, RenderedView, general_scene
from utils.camera_rig import look_at, nearest_sources
from utils.cameras import Cameras, LengthUnit


def nine_cameras():
    centers = torch.zeros(9, 3, dtype=torch.float64)
    centers[:, 0] = torch.linspace(-2, 2, 9)
    centers[:, 2] = -4
    up = torch.tensor([0.0, -1, 0], dtype=torch.float64)
    c2w = look_at(centers, torch.zeros(3, dtype=torch.float64), up).float()
    intrinsics = torch.tensor([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]]).expand(9, 3, 3)
    return Cameras(intrinsics, c2w)


@dataclass(frozen=True)
class PaintedScene(RenderableScene):
    """Nine cameras in a row; the colours of a rendering encode its sources and its camera.

    Its depth is the distance to the plane z = 0, whatever the sources.
    """

    name: str = "painted"
    model: object = None
    cameras: Cameras = field(default_factory=nine_cameras)
    view_names: tuple = tuple("abcdefghi")
    image_size: tuple = (24, 32)
    near_far: torch.Tensor = field(default_factory=lambda: torch.tensor([1.0, 8.0]))
    n_sources: int = 2
    unit: LengthUnit = LengthUnit()
    n_samples: int = 8
    rendered: list = field(default_factory=list)
    stop_after: int = 1_000_000

    def fingerprint(self):
        return f"{self.name} {self.near_far.tolist()}"

    def choose_sources(self, cameras, size):
        return nearest_sources(cameras, self.cameras, self.near_far, self.n_sources)

    def images(self, source_indices):
        return torch.stack([torch.full((3, *self.image_size), i / 8) for i in source_indices])

    def features(self, source_indices):
        raise AssertionError("nothing is encoded")

    def render(self, camera, size, source_indices, before_chunk=None):
        if before_chunk:
            before_chunk()
        if len(self.rendered) >= self.stop_after:
            raise KeyboardInterrupt
        self.rendered.append(tuple(source_indices))
        rgb = torch.zeros(3, *size)
        rgb[0] = sum(source_indices) / (8 * len(source_indices))
        rgb[1] = float(camera.c2w[0, 3]) / 4 + 0.5
        opacity = torch.ones(size)
        opacity[:2] = 0.1
        return RenderedView(rgb, torch.full(size, -float(camera.c2w[2, 3])), opacity)

    def with_sampling(self, near, far, n_samples):
        return replace(self, near_far=torch.tensor([near, far]), n_samples=n_samples)


@pytest.fixture
def painted_scene():
    return PaintedScene()


@pytest.fixture
def general(tiny_model, drawn_scene):
    return general_scene(tiny_model, drawn_scene, drawn_scene.view_ids, chunk=500)
