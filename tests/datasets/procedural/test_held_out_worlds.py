"""Held-out worlds: the subsets differ in texture alone."""

import pytest
import torch

from datasets.config import DataChoice, HeldOutScenes
from datasets.procedural.held_out import world_tasks
from evaluation.rendering import task_sample
from utils.errors import UserError

SMALL = HeldOutScenes(num_worlds=2, world_views=4, world_targets=2)
CHOICE = DataChoice(dataset_name="procedural", image_size=(24, 32), n_views=2)


@pytest.fixture(scope="module")
def tasks():
    return list(world_tasks(SMALL, CHOICE))


def test_every_world_comes_with_and_without_its_textures(tasks):
    assert [task.subset for task in tasks] == ["textured", "textureless"] * 2
    assert len({task.scene.name for task in tasks}) == 4
    roughness = {"textured": 0.0, "textureless": 0.0}
    for rich, plain in zip(tasks[::2], tasks[1::2], strict=True):
        assert rich.targets == plain.targets == (0, 1) and rich.sources == plain.sources
        assert set(rich.sources[0]) <= {2, 3}
        a, b = task_sample(rich, 0), task_sample(plain, 0)
        torch.testing.assert_close(a.targets.cameras, b.targets.cameras, rtol=0, atol=0)
        assert a.targets.size == (24, 32)
        for task, drawn in ((rich, a), (plain, b)):
            roughness[task.subset] += float(drawn.targets.images.diff(dim=-1).abs().median())
        same = (a.targets.depths - b.targets.depths).abs() < 1e-4
        assert same.float().mean() > 0.95
    # Over all worlds: one may have hardly any texture to lose.
    assert roughness["textureless"] < 0.9 * roughness["textured"]


def test_worlds_differ_and_are_the_same_every_time(tasks):
    first, other = task_sample(tasks[0], 0), task_sample(tasks[2], 0)
    assert not torch.equal(first.targets.depths, other.targets.depths)
    again = task_sample(next(world_tasks(SMALL, CHOICE)), 0)
    torch.testing.assert_close(again.targets, first.targets, rtol=0, atol=0)
    torch.testing.assert_close(again.near_far, first.near_far, rtol=0, atol=0)


def test_views_that_no_world_has():
    with pytest.raises(UserError, match="no view 4"):
        next(world_tasks(SMALL, DataChoice("procedural", targets=(4,), image_size=(8, 8))))
