"""Lists of scenes and neighbours, and which views are rendered from which."""

from pathlib import Path

import pytest
import torch

from datasets.config import DataChoice
from datasets.formats.mvsnet_files import read_pairs
from datasets.formats.registry import (
    DEFAULT_LISTS,
    choose_scenes,
    find_scene_list,
    find_scenes,
    read_scene_list,
    split_scenes,
)
from datasets.posed_scene import rank_by_distance
from datasets.protocols import (
    DTU_POOL,
    DTU_TARGETS,
    Protocol,
    Region,
    assign_roles,
    choose_held_out,
    held_out_views,
    plan_task,
    scene_tasks,
)
from datasets.scene_index import SceneEntry
from evaluation.rendering import task_sample
from utils.errors import UserError


def test_default_lists_are_the_published_ones(tmp_path):
    for scan in range(1, 129):
        (tmp_path / "Rectified" / f"scan{scan}_train").mkdir(parents=True)
    train, val, test = (
        [scan.name for scan in split_scenes("dtu", tmp_path, split)]
        for split in ("train", "val", "test")
    )
    numbers = [1, 8, 21, 30, 31, 34, 38, 40, 41, 45, 55, 63, 82, 103, 110, 114]
    assert test == val == [f"scan{number}" for number in numbers]
    assert len(train) == 88 and not set(train) & set(test)


def test_default_pairs_cover_dtus_views():
    pairs = read_pairs(DEFAULT_LISTS / "dtu_pairs.txt")
    assert sorted(pairs) == list(range(49))
    assert all(len(neighbours) == 10 for neighbours in pairs.values())
    assert pairs[0] == [10, 1, 9, 12, 11, 13, 2, 8, 14, 27]


def test_lists_of_the_data_folder_win(tmp_path):
    assert find_scene_list(tmp_path, "test") is None
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "test.txt").write_text("# mine\nscan7\n\nscan9  # the last\nscan7\n")
    found = find_scene_list(tmp_path, "test")
    assert found and read_scene_list(found) == ["scan7", "scan9"]
    assert find_scene_list(tmp_path, "val") == found
    (tmp_path / "lists" / "val.txt").write_text("scan3\n")
    assert find_scene_list(tmp_path, "val") != found


@pytest.mark.parametrize("text", ["", "# nothing\n", "scan1\n../../etc\n", "scan1 scan2\n", "/a\n"])
def test_refuses_lists_that_name_no_scans(tmp_path, text):
    path = tmp_path / "train.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=r"train\.txt"):
        read_scene_list(path, plain_names=True)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "first line"),
        ("1\n", "first line"),
        ("2\n0\n1 1 5.0\n", "first line"),
        ("1\nzero\n1 1 5.0\n", "line 2"),
        ("1\n0\n2 1 5.0\n", "line 3"),
        ("1\n0\n1 1 high\n", "line 3"),
        ("1\n0\nx\n", "line 3"),
    ],
)
def test_refuses_malformed_pairs(tmp_path, text, place):
    path = tmp_path / "pair.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"pair\.txt.*{place}"):
        read_pairs(path)


def test_distance_is_the_sum_over_the_axes():
    centers = {0: torch.zeros(3), 1: torch.tensor([2.0, 2, 2]), 2: torch.tensor([5.0, 0, 0])}
    assert rank_by_distance(0, [0, 1, 2], centers) == [2, 1]


def test_every_eighth_view_is_held_out():
    assert held_out_views(range(20)) == (0, 8, 16)
    assert held_out_views((3, 4, 5)) == (3,)


def test_protocol_of_dtu_where_its_views_are_there():
    assert choose_held_out(range(49), 3) == Protocol(DTU_TARGETS, DTU_POOL)
    few = [*DTU_TARGETS, *DTU_POOL[:3]]
    assert choose_held_out(few, 3) == Protocol(DTU_TARGETS, DTU_POOL[:3])
    # Too small a pool: no target may be in it.
    roles = choose_held_out([*DTU_TARGETS, *DTU_POOL[:2], 1, 2], 3)
    assert len(roles.targets) == 1 and not set(roles.targets) & set(roles.pool)


@pytest.mark.parametrize(("count", "targets"), [(4, [2]), (8, [4]), (24, [4, 12, 20])])
def test_fifth_of_every_eight_views_otherwise(count, targets):
    roles = choose_held_out(range(count), 3)
    assert list(roles.targets) == targets
    assert sorted(roles.targets + roles.pool) == list(range(count))


NINE = tuple(range(9))
OWN = {"train": (0, 1, 2), "test": (3, 4)}


@pytest.mark.parametrize(
    ("name", "splits", "split", "listed", "targets", "pool"),
    [
        ("llff", {}, "train", True, NINE, NINE),
        ("llff", {}, "val", True, (0, 8), NINE[1:8]),
        ("llff", {}, "train", False, NINE[1:8], NINE[1:8]),
        ("blender", OWN, "val", False, (3, 4), (0, 1, 2)),
        ("blender", OWN, "val", True, (3, 4), (0, 1, 2)),
        ("dtu", {}, "train", True, NINE, NINE),
        ("dtu", {}, "val", True, (4,), (0, 1, 2, 3, 5, 6, 7, 8)),
        ("dtu", {}, "train", False, (0, 1, 2, 3, 5, 6, 7, 8), (0, 1, 2, 3, 5, 6, 7, 8)),
    ],
)
def test_roles_of_views_in_training(name, splits, split, listed, targets, pool):
    entry = SceneEntry(Path("x"), NINE, (4, 5), splits)
    roles = assign_roles(name, entry, split, listed, 3)
    assert (roles.targets, roles.pool) == (targets, pool)


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


def test_tasks_of_dtu(tiny_dtu):
    (task,) = scene_tasks(DataChoice(datadir=str(tiny_dtu)))
    assert (task.scene.name, task.targets) == ("scan2", (4,))
    sample = task_sample(task, 0)
    assert sample.source_ids == task.scene.nearest(4, task.scene.view_ids, 3)
    assert sample.sources.masks.equal(sample.sources.depths > 0)
    torch.testing.assert_close(sample.near_far, torch.tensor([425.0, 1.5 * 905.0]) / 200)


@pytest.mark.parametrize("name", ["auto", "dtu"])
def test_scans_by_name_and_as_folders(tiny_dtu, name):
    def names(**choice):
        tasks = scene_tasks(DataChoice(name, **choice))
        return [task.scene.name for task in tasks]

    assert names(datadir=str(tiny_dtu), scan="scan1, scan2") == ["scan1", "scan2"]
    assert names(datadir=str(tiny_dtu / "scan1")) == ["scan1"]
    with pytest.raises(UserError, match="no scan 'scan7'.*scan1"):
        names(datadir=str(tiny_dtu / "scan7"))
    with pytest.raises(UserError, match="name two scans"):
        names(datadir=str(tiny_dtu / "scan1"), scan="scan2")
    with pytest.raises(UserError, match="no such data folder"):
        names(datadir=str(tiny_dtu / "absent" / "scan1"))


def test_folders_of_scenes(tmp_path):
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "transforms.json").write_text("{}")
    (tmp_path / "c").mkdir()
    both, file = [tmp_path / "a", tmp_path / "b"], tmp_path / "a" / "transforms.json"
    for given, found in ((tmp_path, both), (both[0], both[:1]), (file, [file])):
        assert find_scenes("transforms", given) == found
    assert find_scenes("transforms", tmp_path / "c") == [tmp_path / "c"]
    assert choose_scenes("transforms", tmp_path, "b") == both[1:]
    with pytest.raises(UserError, match=r"no scene 'aa' \(--scan\).*names there: a"):
        choose_scenes("transforms", tmp_path, "aa")
    with pytest.raises(UserError, match="no such scene.*names there: b"):
        choose_scenes("transforms", tmp_path / "bb")


@pytest.mark.parametrize(
    "choice",
    [
        {"n_views": 0},
        {"targets": (1, 1)},
        {"image_size": (10,)},
        {"near_far": (1.0,)},
        *({"near_far": near_far} for near_far in ((0.0, 2.0), (2.0, 1.0), (1.0, float("nan")))),
    ],
)
def test_choices_that_cannot_be_meant(choice):
    with pytest.raises(ValueError):
        DataChoice(**choice)
