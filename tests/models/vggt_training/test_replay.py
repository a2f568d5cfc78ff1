from collections import Counter
from dataclasses import replace

import pytest
import torch

from datasets.views import Views
from models.vggt_training.replay import RenderedBatches, ReplayConfig, reordered
from utils.cameras import project, unproject


def visited(config: ReplayConfig, steps: int, seed: int = 0) -> list[int]:
    return [config.batch_of(step, seed) for step in range(steps)]


def test_every_batch_is_new_once_and_visited_often():
    config = ReplayConfig(visits=4, replay_batches=8)
    batches = visited(config, 4000)
    assert batches[::4] == list(range(1000))
    counts = Counter(batches)
    assert sum(counts.values()) / len(counts) == 4
    assert max(counts.values()) < 16
    ages = [step // 4 - batch for step, batch in enumerate(batches)]
    assert set(ages) == set(range(8))


def test_one_visit_means_always_new():
    assert visited(ReplayConfig(visits=1, replay_batches=5), 20) == list(range(20))


def test_batches_are_a_function_of_step_and_seed():
    config = ReplayConfig()
    assert visited(config, 100) == visited(config, 100)
    assert visited(config, 100, seed=1) != visited(config, 100)


def run(config: ReplayConfig, steps: range, template: Views, rendered: list[int]) -> list[float]:
    """Go through steps with nothing rendered before; a batch is known by its depth."""
    batches = RenderedBatches(config)

    def render(plan: int) -> Views:
        rendered.append(plan)
        return replace(template, depths=torch.full_like(template.depths, plan))

    taken = []
    for step in steps:
        missing = config.missing_batches(step, batches.numbers)
        views = batches.take(step, 0, {number: number for number in missing}, render)
        taken.append(float(views.depths.mean()))
        assert len(batches.numbers) <= config.replay_batches
    return taken


def test_resuming_anywhere_takes_the_same_batches(views: Views):
    config = ReplayConfig(visits=3, replay_batches=4)
    rendered: list[int] = []
    whole = run(config, range(40), views, rendered)
    assert rendered == list(range(14))
    for start in (0, 1, 5, 17, 39):
        assert run(config, range(start, 40), views, []) == whole[start:]


def test_reordered_views_keep_what_belongs_together(views: Views):
    turned = reordered(views, torch.Generator().manual_seed(1))
    order = [
        next(i for i in range(3) if torch.equal(views.images[0, i], turned.images[0, k]))
        for k in range(3)
    ]
    assert sorted(order) == [0, 1, 2]
    assert order != [0, 1, 2]
    assert torch.equal(turned.depths, views.depths[:, order])
    pixel = torch.tensor([[10.5, 20.5]]).expand(2, 3, 1, 2)
    points = unproject(pixel, turned.depths[:, :, 20, 10, None], turned.cameras)
    torch.testing.assert_close(points[..., 2], torch.full((2, 3, 1), 4.0))
    back, _ = project(points, turned.cameras)
    torch.testing.assert_close(back, pixel)


@pytest.mark.parametrize("change", [{"visits": 0}, {"replay_batches": 0}])
def test_refuses_a_supply_without_scenes(change: dict):
    with pytest.raises(ValueError, match="must be positive"):
        ReplayConfig(**change)
