"""Lists of scenes and neighbours, and which views are rendered from which."""

from functools import partial
from pathlib import Path

import pytest

from datasets.config import DataChoice
from datasets.formats.mvsnet_files import read_pairs
from datasets.formats.registry import DEFAULT_LISTS, choose_scenes, find_scenes, split_scenes
from datasets.formats.splits import find_scene_list, read_scene_list
from datasets.protocols import (
    DTU_POOL,
    DTU_TARGETS,
    Protocol,
    Region,
    assign_roles,
    choose_held_out,
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


@pytest.mark.parametrize(
    ("read", "text", "place"),
    [
        *(
            (partial(read_scene_list, plain_names=True), text, "")
            for text in ("", "# nothing\n", "scan1\n../../etc\n", "scan1 scan2\n", "/a\n")
        ),
        (read_pairs, "", "first line"),
        (read_pairs, "2\n0\n1 1 5.0\n", "first line"),
        (read_pairs, "1\nzero\n1 1 5.0\n", "line 2"),
        (read_pairs, "1\n0\n2 1 5.0\n", "line 3"),
        (read_pairs, "1\n0\n1 1 high\n", "line 3"),
        (read_pairs, "1\n0\nx\n", "line 3"),
    ],
)
def test_refuses_lists_without_scenes_and_malformed_pairs(tmp_path, read, text, place):
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"list\.txt.*{place}"):
        read(path)


def test_protocol_of_dtu_where_its_views_are_there():
    assert choose_held_out(range(49), 3) == Protocol(DTU_TARGETS, DTU_POOL)
    few = [*DTU_TARGETS, *DTU_POOL[:3]]
    assert choose_held_out(few, 3) == Protocol(DTU_TARGETS, DTU_POOL[:3])
    # Too small a pool: no target may be in it.
    roles = choose_held_out([*DTU_TARGETS, *DTU_POOL[:2], 1, 2], 3)
    assert len(roles.targets) == 1 and not set(roles.targets) & set(roles.pool)
    for count, targets in ((4, (2,)), (8, (4,)), (24, (4, 12, 20))):
        roles = choose_held_out(range(count), 3)
        assert roles.targets == targets
        assert sorted(roles.targets + roles.pool) == list(range(count))


NINE = tuple(range(9))
OTHERS = (0, 1, 2, 3, 5, 6, 7, 8)
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
        ("dtu", {}, "val", True, (4,), OTHERS),
        ("dtu", {}, "train", False, OTHERS, OTHERS),
    ],
)
def test_roles_of_views_in_training(name, splits, split, listed, targets, pool):
    entry = SceneEntry(Path("x"), NINE, (4, 5), splits)
    roles = assign_roles(name, entry, split, listed, 3)
    assert (roles.targets, roles.pool) == (targets, pool)


def test_protocol_unless_chosen_and_impossible_views(drawn_scene):
    protocol = Protocol((2, 5), drawn_scene.view_ids, Region(border=0.1))
    task = plan_task(drawn_scene, protocol, DataChoice(n_views=2))
    # Neither target is ever a source.
    assert task.targets == (2, 5) and task.sources == ((1, 3), (4, 3))
    assert task.region == protocol.region
    chosen = DataChoice(targets=(0,), sources=(0, 5, 4), n_views=2)
    assert plan_task(drawn_scene, protocol, chosen).sources == ((4, 5),)
    for wrong in (
        DataChoice(targets=(9,)),
        DataChoice(sources=(1, 9)),
        DataChoice(targets=(1,), sources=(1,)),
    ):
        with pytest.raises(UserError, match="'drawn'"):
            plan_task(drawn_scene, protocol, wrong)


def test_fewer_views_than_wanted_are_all_read(drawn_scene, caplog):
    protocol = Protocol((2, 5), drawn_scene.view_ids)
    few = plan_task(drawn_scene, protocol, DataChoice(sources=(1, 2, 3)))
    assert [set(sources) for sources in few.sources] == [{1, 3}, {2, 3}]
    assert "drawn: only 2 source views are available" in caplog.text
    assert plan_task(drawn_scene, protocol, DataChoice(sources=(1,))).sources == ((1,), (1,))


def test_tasks_of_dtu(tiny_dtu):
    (task,) = scene_tasks(DataChoice(datadir=str(tiny_dtu)))
    assert (task.scene.name, task.targets) == ("scan2", (4,))
    sample = task_sample(task, 0)
    assert sample.source_ids == task.scene.nearest(4, task.scene.view_ids, 3)
    assert sample.sources.masks.equal(sample.sources.depths > 0)


@pytest.mark.parametrize("name", ["auto", "dtu"])
def test_scans_by_name_and_as_folders(tiny_dtu, name):
    def names(place="", **choice):
        tasks = scene_tasks(DataChoice(name, str(tiny_dtu / place), **choice))
        return [task.scene.name for task in tasks]

    assert names(scan="scan1, scan2") == ["scan1", "scan2"]
    assert names("scan1") == ["scan1"]
    for place, scan, problem in (
        ("scan7", "", "no scan 'scan7'.*scan1"),
        ("scan1", "scan2", "name two scans"),
        ("absent/scan1", "", "no such data folder"),
    ):
        with pytest.raises(UserError, match=problem):
            names(place, scan=scan)


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
    with pytest.raises(UserError, match=r"no scene 'aa' \(--scan\).*names in the folder: a"):
        choose_scenes("transforms", tmp_path, "aa")
    with pytest.raises(UserError, match="no such scene.*names in the folder: b"):
        choose_scenes("transforms", tmp_path / "bb")
