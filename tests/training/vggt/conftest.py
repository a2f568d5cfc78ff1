"""Scenes that can be checked by hand: a textured plane at z = 4, seen from in front."""

import pytest
import torch
from tiny_models import SMALLEST_VGGT

from datasets.procedural.config import ProceduralConfig, ReplayConfig
from datasets.procedural.generator import ProceduralBatch, ProceduralGenerator
from datasets.views import Views
from training.vggt.config import (
    CurriculumConfig,
    HeldOutConfig,
    MiniTrainingConfig,
    OptimizerConfig,
    RunConfig,
)
from utils.cameras import Cameras, pixel_directions, pixel_grid, rotate

PLANE_DEPTH = 4.0


def plane_cameras(batch, views, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    intrinsics = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1.0]])
    c2w = torch.eye(4).repeat(batch, views, 1, 1)
    c2w[..., :3, 3] = 0.4 * torch.rand(batch, views, 3, generator=generator)
    angles = 0.2 * torch.rand(batch, views, generator=generator)
    c2w[..., 0, 0] = c2w[..., 2, 2] = angles.cos()
    c2w[..., 0, 2] = angles.sin()
    c2w[..., 2, 0] = -angles.sin()
    return Cameras(intrinsics.expand(batch, views, 3, 3), c2w)


def plane_views(batch, views, size, seed=0):
    cameras = plane_cameras(batch, views, size, seed)
    pixels = pixel_grid(*size, torch.device("cpu"))
    directions = pixel_directions(pixels.expand(batch, views, -1, -1), cameras.intrinsics)
    directions = rotate(directions, cameras)
    centers = cameras.centers[:, :, None]
    depths = (PLANE_DEPTH - centers[..., 2]) / directions[..., 2]
    points = centers + depths[..., None] * directions
    colours = torch.stack([(k * points[..., 0] + points[..., 1] * 3).sin() for k in (3, 5, 7)], 2)
    depths = depths.unflatten(-1, size)
    images = (0.5 + 0.5 * colours).unflatten(-1, size)
    return Views(images, cameras, depths, depths > 0)


class PlaneSource(ProceduralGenerator):
    """An endless supply of planes; the first scene's number decides."""

    def __init__(self):
        super().__init__(ProceduralConfig())

    def on(self, device):
        return self

    def prepare(self, scene_ids, num_views, size, difficulty, light=0):
        return plane_views(len(scene_ids), num_views, size, seed=scene_ids[0])

    def render(self, prepared):
        return ProceduralBatch(prepared, torch.empty(len(prepared.images), 2))


@pytest.fixture
def plane_source():
    return PlaneSource()


@pytest.fixture
def views():
    return plane_views(2, 3, (56, 84))


@pytest.fixture
def network_config():
    return SMALLEST_VGGT


@pytest.fixture
def training_config(network_config, tmp_path):
    return MiniTrainingConfig(
        run=RunConfig(
            save_dir=str(tmp_path),
            val_every=4,
            save_every=3,
            num_workers=0,
            device="cpu",
            devices="1",
        ),
        network=network_config,
        # One shape only: on a CPU every new one costs seconds of preparing convolutions.
        curriculum=CurriculumConfig(
            start_max_views=2,
            max_views=2,
            start_patches=6,
            end_patches=6,
            patches_per_step=24,
            aspects=(1.5,),
        ),
        held_out=HeldOutConfig(val_scenes=2, val_views=2, val_height=28, val_width=42),
        replay=ReplayConfig(visits=2, replay_batches=3),
        optimizer=OptimizerConfig(warmup_steps=2, max_steps=8, matching_until=6),
    )
