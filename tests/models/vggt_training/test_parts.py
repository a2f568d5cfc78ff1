import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from datasets.replay import FIRST_TRAINING_SCENE
from models.vggt import VGGT, random_vggt
from models.vggt.config import VGGTConfig
from models.vggt_training.curriculum import CurriculumConfig, plan_step
from models.vggt_training.ema import averaged_copy, update_average
from models.vggt_training.export import export_vggt
from models.vggt_training.jitter import JitterConfig, jitter_colours
from models.vggt_training.optimization import MiniOptimizerConfig, build_mini_optimizer
from utils.errors import UserError

CURRICULUM = CurriculumConfig(ramp_steps=100, ramp_stages=4, patches_per_step=4000)


def test_curriculum_grows_and_stays_within_its_budget():
    plans = [plan_step(CURRICULUM, step, 14, seed=0) for step in range(0, 400)]
    for plan in plans:
        height, width = plan.size
        assert height % 14 == width % 14 == 0
        patches = height * width // 14**2
        assert 0.85 * 108 < patches < 1.15 * 320
        assert plan.num_scenes * plan.num_views * patches <= 4000
        assert 2 <= plan.num_views <= 8
    assert {plan.num_views for plan in plans[:25]} == {2, 3, 4}
    assert {plan.num_views for plan in plans[100:]} == {2, 3, 4, 5, 6, 7, 8}
    assert len({plan.size for plan in plans}) <= 5 * len(CURRICULUM.aspects)
    assert [plans[step].difficulty for step in (0, 24, 25, 99, 100)] == [0, 0, 0.25, 0.75, 1]
    assert max(p.size[1] / p.size[0] for p in plans) > 1.6
    assert min(p.size[1] / p.size[0] for p in plans) < 0.8


def test_curriculum_depends_on_step_and_seed_alone():
    assert plan_step(CURRICULUM, 7, 14, seed=1) == plan_step(CURRICULUM, 7, 14, seed=1)
    others = [plan_step(CURRICULUM, 7, 14, seed=seed) for seed in range(20)]
    assert len({(plan.num_views, plan.size) for plan in others}) > 3


def test_spread_sizes_fill_a_step_as_single_ones_do():
    config = CurriculumConfig(ramp_steps=0, start_patches=80, end_patches=80, patch_spread=2.0)
    plans = [plan_step(config, step, 14, seed=0) for step in range(200)]
    patches = [(plan.size[0] // 14) * (plan.size[1] // 14) for plan in plans]
    assert min(patches) < 50
    assert max(patches) > 130
    # Whole rows and columns of patches: not exactly within a factor of two.
    assert all(80 / 2.4 < count < 80 * 2.4 for count in patches)
    for plan, count in zip(plans, patches, strict=True):
        filled = plan.num_scenes * plan.num_views * count
        assert config.patches_per_step * 0.9 < filled <= config.patches_per_step
        assert plan.num_scenes <= plan.max_scenes


def test_a_spread_below_one_is_refused():
    with pytest.raises(ValueError, match="patch_spread=0.5"):
        CurriculumConfig(patch_spread=0.5)


def test_no_scene_is_seen_twice_and_none_is_held_out():
    seen: list[int] = []
    for step in (*range(30), *range(100, 130)):
        for rank in range(3):
            seen += plan_step(CURRICULUM, step, 14, seed=0).scene_ids(step, rank, 3)
    assert len(seen) == len(set(seen))
    assert min(seen) >= FIRST_TRAINING_SCENE


@pytest.mark.parametrize(
    "change",
    [
        {"min_views": 0},
        {"max_views": 3},
        {"patches_per_step": 100},
        {"aspects": ()},
        {"ramp_stages": 0},
    ],
)
def test_refuses_an_impossible_curriculum(change: dict):
    with pytest.raises(ValueError, match=r"views|patches|aspects"):
        replace(CurriculumConfig(), **change)


def test_average_follows_slowly_and_forgets_its_start():
    network = nn.Linear(2, 2, bias=False)
    average = averaged_copy(network)
    nn.init.ones_(network.weight)
    nn.init.zeros_(average.weight)  # pyright: ignore
    update_average(average, network, decay=0.9, step=0)
    torch.testing.assert_close(average.weight, torch.full((2, 2), 0.9))
    update_average(average, network, decay=0.9, step=10_000)
    torch.testing.assert_close(average.weight, torch.full((2, 2), 0.91))
    assert not average.weight.requires_grad
    assert network.weight.requires_grad


def test_jitter_is_per_view_within_range_and_reproducible():
    grey = torch.full((2, 3, 3, 4, 5), 0.5)

    def jittered(seed: int) -> torch.Tensor:
        return jitter_colours(grey, JitterConfig(), torch.Generator().manual_seed(seed))

    first = jittered(0)
    assert torch.equal(first, jittered(0))
    assert not torch.equal(first, jittered(1))
    assert first.mean((2, 3, 4)).unique().numel() == 6
    assert first.min() >= 0 and first.max() <= 1


def test_no_jitter_changes_nothing_and_grey_is_grey():
    images = torch.rand(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    none = JitterConfig(0.0, 0.0, 0.0, 0.0, 0.0)
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(jitter_colours(images, none, generator), images)
    grey = jitter_colours(images, replace(none, grey_share=1.0), generator)
    torch.testing.assert_close(grey[:, :, :1].expand_as(grey), grey)


def test_schedule_and_weight_decay():
    config = MiniOptimizerConfig(lrate=1.0, lrate_end=0.1, warmup_steps=4, max_steps=104)
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    optimizer, schedule = build_mini_optimizer(network.named_parameters(), config)
    rates = []
    for _ in range(106):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[54] == pytest.approx(0.55)
    assert rates[104] == rates[105] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[4:]))
    decayed, exempt = optimizer.param_groups
    assert decayed["weight_decay"] > 0
    assert [p.shape for p in decayed["params"]] == [(2, 2)]
    assert exempt["weight_decay"] == 0


def test_export_is_read_back(tmp_path: Path, network_config: VGGTConfig):
    network = random_vggt(network_config, seed=0)
    path = export_vggt(network, tmp_path / "mini")
    loaded = VGGT.from_pretrained(tmp_path / "mini")
    assert loaded.config == network_config
    assert json.loads((tmp_path / "mini" / "config.json").read_text())["embed_dim"] == 16
    for key, value in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value, rtol=1e-3, atol=1e-6)
    size = sum(p.numel() for p in network.parameters())
    assert 2 * size < path.stat().st_size < 2 * size + 100_000
    assert {file.name for file in path.parent.iterdir()} == {"config.json", "model.safetensors"}


def test_export_refuses_what_does_not_fit(tmp_path: Path, network_config: VGGTConfig):
    network = random_vggt(network_config, seed=0)
    with pytest.raises(UserError, match="limit of 1000"):
        export_vggt(network, tmp_path, max_bytes=1000)
    nn.init.constant_(network.depth_head.norm.weight, 1e6)
    with pytest.raises(UserError, match=r"depth_head\.norm\.weight"):
        export_vggt(network, tmp_path)
    assert not list(tmp_path.iterdir())
