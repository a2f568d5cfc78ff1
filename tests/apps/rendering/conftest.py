from dataclasses import dataclass, field, replace

import pytest
import torch

from apps.rendering.scene import GeneralScene, Picture, RenderSettings
from apps.rendering.source_selection import nearest_sources
from utils.cameras import Cameras
from utils.depth_pictures import LengthUnit
from utils.surroundings import look_at


@dataclass(frozen=True)
class PaintedScene:
    """Nine cameras in a row; a rendering shows which sources it was made from.

    Its depth is the distance to the plane z = 0, whatever the sources.
    """

    name: str = "painted"
    n_sources: int = 2
    n_samples: int = 8
    unit: LengthUnit = LengthUnit()
    near_far: torch.Tensor = field(default_factory=lambda: torch.tensor([1.0, 8.0]))
    image_size: tuple = (24, 32)
    rendered: list = field(default_factory=list)
    stop_after: int = 1_000_000

    @property
    def cameras(self):
        centers = torch.zeros(9, 3, dtype=torch.float64)
        centers[:, 0] = torch.linspace(-2, 2, 9)
        centers[:, 2] = -4
        up = torch.tensor([0.0, -1, 0], dtype=torch.float64)
        c2w = look_at(centers, torch.zeros(3, dtype=torch.float64), up).float()
        intrinsics = torch.tensor([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]]).expand(9, 3, 3)
        return Cameras(intrinsics, c2w)

    def fingerprint(self):
        return f"{self.name} {self.near_far.tolist()}"

    def choose_sources(self, cameras, size):
        return nearest_sources(cameras, self.cameras, self.near_far, self.n_sources)

    def images(self, places):
        return torch.stack([torch.full((3, *self.image_size), place / 8) for place in places])

    def render(self, camera, size, places, before_chunk=None):
        if before_chunk:
            before_chunk()
        if len(self.rendered) >= self.stop_after:
            raise KeyboardInterrupt
        self.rendered.append(tuple(places))
        rgb = torch.zeros(3, *size)
        rgb[0] = sum(places) / (8 * len(places))
        rgb[1] = float(camera.c2w[0, 3]) / 4 + 0.5
        opacity = torch.ones(size)
        opacity[:2] = 0.1
        return Picture(rgb, torch.full(size, -float(camera.c2w[2, 3])), opacity)

    def with_sampling(self, near, far, n_samples):
        return replace(self, near_far=torch.tensor([near, far]), n_samples=n_samples)


@pytest.fixture
def painted_scene():
    return PaintedScene()


@pytest.fixture
def general_scene(tiny_model, drawn_scene):
    return GeneralScene(tiny_model, drawn_scene, drawn_scene.view_ids, RenderSettings(chunk=500))
