"""Which views are rendered from which, on data sets that the tests write."""

import pytest
import torch

from datasets.formats.dtu import DTUDataset
from datasets.formats.registry import find_scenes
from datasets.views import SampleRequest
from evaluation.config import DataChoice
from evaluation.photographs import dtu_tasks, split_scan
from evaluation.rendering import task_sample
from evaluation.scores import Region
from evaluation.tasks import Protocol, plan_task
from utils.errors import UserError


def test_protocol_unless_chosen(drawn_scene):
    protocol = Protocol((2, 5), drawn_scene.view_ids, Region(border=0.1))
    task = plan_task(drawn_scene, protocol, DataChoice(n_views=2))
    # Neither target is ever a source.
    assert task.targets == (2, 5) and task.sources == ((1, 3), (4, 3))
    assert task.region == protocol.region
    chosen = DataChoice(targets=(0,), sources=(0, 5, 4), n_views=2)
    assert plan_task(drawn_scene, protocol, chosen).sources == ((4, 5),)


@pytest.mark.parametrize(
    "choice", [{"targets": (9,)}, {"sources": (1, 9)}, {"sources": (1,)}, {"n_views": 6}]
)
def test_impossible_views_are_refused_before_any_is_read(drawn_scene, choice):
    with pytest.raises(UserError, match="'drawn'"):
        plan_task(drawn_scene, Protocol((2,), drawn_scene.view_ids, Region()), DataChoice(**choice))


def test_dtu_tasks_are_the_samples_of_the_reader(tiny_dtu):
    (task,) = dtu_tasks(DataChoice(datadir=str(tiny_dtu)))
    reader = DTUDataset(tiny_dtu, "test")
    assert task.scene.name == "scan2" and len(task.targets) == len(reader)
    for place in range(len(reader)):
        ours, theirs = task_sample(task, place), reader[SampleRequest(place)]
        assert (ours.target_ids, ours.source_ids) == (theirs.target_ids, theirs.source_ids)
        torch.testing.assert_close(ours.near_far, theirs.near_far, rtol=0, atol=0)
        for a, b in ((ours.sources, theirs.sources), (ours.targets, theirs.targets)):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_scans_by_name_and_as_folders(tiny_dtu):
    def names(**choice):
        return [task.scene.name for task in dtu_tasks(DataChoice(**choice))]

    assert names(datadir=str(tiny_dtu), scans="scan1, scan2") == ["scan1", "scan2"]
    assert names(datadir=str(tiny_dtu / "scan1")) == ["scan1"]
    with pytest.raises(UserError, match="scan7"):
        names(datadir=str(tiny_dtu / "scan7"))
    with pytest.raises(UserError, match="no such data folder"):
        names(datadir=str(tiny_dtu / "absent" / "scan1"))


def test_image_scale(tiny_dtu):
    (task,) = dtu_tasks(DataChoice(datadir=str(tiny_dtu), image_scale=0.5))
    sample = task_sample(task, 0)
    assert sample.targets.size == task.scene.image_size == (32, 40)


def test_folders_of_scenes(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "transforms.json").write_text("{}")
    (tmp_path / "c").mkdir()
    both = [tmp_path / "a", tmp_path / "b"]
    assert find_scenes("transforms", tmp_path) == both
    assert find_scenes("transforms", tmp_path / "a") == [tmp_path / "a"]
    assert find_scenes("transforms", tmp_path / "c") == [tmp_path / "c"]
    file = tmp_path / "a" / "transforms.json"
    assert find_scenes("transforms", file) == [file]
    assert split_scan(tmp_path / "a") == (tmp_path / "a", None)


@pytest.mark.parametrize(
    "choice",
    [
        {"n_views": 0},
        {"targets": (1, 1)},
        {"image_size": (10,), "dataset_name": "llff"},
        {"image_size": (10, 10)},
        {"near_far": (1.0, 2.0), "dataset_name": "llff"},
        {"near_far": (0.0, 2.0), "dataset_name": "transforms"},
    ],
)
def test_choices_that_cannot_be_meant(choice):
    with pytest.raises(ValueError):
        DataChoice(**choice)
