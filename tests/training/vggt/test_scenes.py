"""Which scenes steps and validations see."""

from dataclasses import replace

import pytest
import torch

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralGenerator
from datasets.procedural.replay import FIRST_TRAINING_SCENE, SceneRequest
from training.vggt import scenes
from training.vggt.config import MAX_HELD_OUT, CurriculumConfig, HeldOutConfig
from training.vggt.evaluation import evaluate_held_out
from training.vggt.scenes import held_out_requests, plan_step

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


def test_no_scene_is_seen_twice_and_none_is_held_out():
    seen: list[int] = []
    for step in (*range(30), *range(100, 130)):
        for rank in range(3):
            seen += plan_step(CURRICULUM, step, 14, seed=0).request(step, rank, 3).scene_ids
    assert len(seen) == len(set(seen))
    assert min(seen) >= FIRST_TRAINING_SCENE == MAX_HELD_OUT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start_max_views": 1}, "start_max_views=1"),
        ({"max_views": 3}, "max_views"),
        ({"patches_per_step": 100}, "patches_per_step=100"),
        ({"aspects": ()}, "aspects"),
        ({"ramp_stages": 0}, "ramp_stages=0"),
        ({"patch_spread": 0.5}, "patch_spread=0.5"),
    ],
)
def test_refuses_an_impossible_curriculum(change, words):
    with pytest.raises(ValueError, match=words):
        replace(CurriculumConfig(), **change)


@pytest.mark.parametrize("change", [{"val_views": 1}, {"val_scenes": 0}, {"val_scenes": 10**7}])
def test_refuses_held_out_scenes_that_prove_nothing(change):
    with pytest.raises(ValueError, match="val_"):
        HeldOutConfig(**change)


def test_held_out_scenes_are_shared_out_and_counted_once(plane_source, monkeypatch):
    monkeypatch.setattr(scenes, "_VAL_BATCH", 2)
    config = HeldOutConfig(val_scenes=7, val_height=28, val_width=42, val_views=2)
    requests = [request for rank in range(3) for request in held_out_requests(config, rank, 3)]
    assert sorted(scene for request in requests for scene in request.scene_ids) == list(range(7))
    seen: list[int] = []
    sample = plane_source.sample

    def counting(scene_ids, *rest):
        seen.extend(scene_ids)
        return sample(scene_ids, *rest)

    def cheat(views):
        return views.depths, torch.ones(*views.depths.shape[:2], 9)

    plane_source.sample = counting
    metrics = evaluate_held_out(cheat, plane_source, config)
    assert seen == list(range(7))
    assert metrics["abs_rel"] == pytest.approx(0, abs=1e-6)
    assert metrics["within_103"] == 1


def test_procedural_scenes_arrive():
    source = ProceduralGenerator(ProceduralConfig())
    request = SceneRequest(range(2), 2, (14, 28), 0.0)
    views = source.sample(*request).views
    assert views.images.shape == (2, 2, 3, 14, 28)
    again = source.on("cpu").render(source.prepare(*request))
    assert torch.equal(views.images, again.views.images)
