import pytest
import torch

from datasets.config import DataConfig
from datasets.procedural.config import ProceduralDataConfig, ReplayConfig
from datasets.procedural.data_module import ProceduralDataModule, draw_views
from utils.errors import UserError


def line_of_cameras(scenes: int = 200, views: int = 6) -> torch.Tensor:
    centers = torch.zeros(scenes, views, 3)
    centers[..., 0] = torch.arange(views)
    return centers


def test_targets_are_any_and_sources_are_near_and_others():
    generator = torch.Generator().manual_seed(0)
    targets, sources = draw_views(line_of_cameras(), (1, 2), 0.0, generator)
    assert set(targets[:, 0].tolist()) == set(range(6))
    assert (sources != targets).all()
    inner = (targets[:, 0] > 0) & (targets[:, 0] < 5)
    assert ((sources - targets).abs()[inner] == 1).all()
    assert ((sources - targets).abs()[~inner].sort(1).values == torch.tensor([1, 2])).all()


def test_noise_lets_farther_views_in_but_no_target():
    generator = torch.Generator().manual_seed(0)
    targets, sources = draw_views(line_of_cameras(), (2, 3), 0.5, generator)
    chosen = torch.cat([targets, sources], 1).sort(1).values
    assert (chosen[:, 1:] > chosen[:, :-1]).all()
    gaps = (sources - targets[:, :1]).abs().float()
    assert gaps.max() > 3
    assert gaps.mean() < 2.5


def test_difficulty_rises_and_stays():
    worlds = ProceduralDataConfig(start_difficulty=0.2, end_difficulty=1.0, difficulty_ramp=100)
    rising = [worlds.difficulty_at(step) for step in (0, 50, 100, 1000)]
    assert rising == pytest.approx([0.2, 0.6, 1.0, 1.0])


def test_scenes_are_never_seen_twice():
    data = DataConfig(dataset_name="procedural", scenes_per_batch=3, num_targets=2)
    module = ProceduralDataModule(data, ProceduralDataConfig(), ReplayConfig())
    ids = [scene for batch in range(50) for scene in module.request(batch).scene_ids]
    assert len(ids) == len(set(ids)) == 150
    with pytest.raises(UserError, match="world_views=4: a sample needs 5"):
        ProceduralDataModule(data, ProceduralDataConfig(world_views=4), ReplayConfig())
