import pytest
import torch

from datasets.view_selection import (
    PROTOCOL_POOL,
    PROTOCOL_TARGETS,
    choose_held_out,
    find_pair_list,
    find_scan_list,
    rank_by_distance,
    rank_neighbours,
    read_pairs,
    read_scan_list,
)
from utils.errors import UserError


def test_default_lists_are_the_published_ones(tmp_path):
    train = read_scan_list(find_scan_list(tmp_path, "train"))
    test = read_scan_list(find_scan_list(tmp_path, "test"))
    numbers = [1, 8, 21, 30, 31, 34, 38, 40, 41, 45, 55, 63, 82, 103, 110, 114]
    assert test == [f"scan{number}" for number in numbers]
    assert len(train) == 88
    assert not set(train) & set(test)
    assert read_scan_list(find_scan_list(tmp_path, "val")) == test


def test_default_pairs_cover_dtus_views(tmp_path):
    pairs = read_pairs(find_pair_list(tmp_path))
    assert sorted(pairs) == list(range(49))
    assert all(len(neighbours) == 10 for neighbours in pairs.values())
    assert pairs[0] == [10, 1, 9, 12, 11, 13, 2, 8, 14, 27]


def test_lists_of_the_data_folder_win(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "test.txt").write_text("# mine\nscan7\n\nscan9  # the last\nscan7\n")
    assert read_scan_list(find_scan_list(tmp_path, "test")) == ["scan7", "scan9"]
    assert find_scan_list(tmp_path, "val").name == "test.txt"
    (tmp_path / "lists" / "val.txt").write_text("scan3\n")
    assert read_scan_list(find_scan_list(tmp_path, "val")) == ["scan3"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "scan1\n../../etc\n", "scan1 scan2\n", "/a\n"])
def test_refuses_lists_that_name_no_scans(tmp_path, text):
    path = tmp_path / "train.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=r"train\.txt"):
        read_scan_list(path)


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


def test_neighbours_come_from_the_list_then_by_distance():
    views = [0, 2, 3, 5]
    centers = torch.tensor([[0.0, 0, 0], [2.0, 0, 0], [3.0, 0, 0], [5.0, 0, 0]])
    ranked = rank_neighbours(views, centers, {0: [5, 4, 0], 9: [1]})
    assert ranked[0] == [5, 2, 3]
    assert ranked[2] == [3, 0, 5]


def test_distance_is_the_sum_over_the_axes():
    centers = {0: torch.zeros(3), 1: torch.tensor([2.0, 2, 2]), 2: torch.tensor([5.0, 0, 0])}
    assert rank_by_distance(0, [0, 1, 2], centers) == [2, 1]


def test_protocol_where_its_views_are_there():
    targets, pool = choose_held_out(list(range(49)), 3)
    assert targets == list(PROTOCOL_TARGETS)
    assert pool == list(PROTOCOL_POOL)
    few = [*PROTOCOL_TARGETS, *PROTOCOL_POOL[:3]]
    assert choose_held_out(few, 3) == (list(PROTOCOL_TARGETS), list(PROTOCOL_POOL[:3]))


@pytest.mark.parametrize(("count", "targets"), [(4, [2]), (8, [4]), (24, [4, 12, 20])])
def test_fifth_of_every_eight_views_otherwise(count, targets):
    chosen, pool = choose_held_out(list(range(count)), 3)
    assert chosen == targets
    assert sorted(chosen + pool) == list(range(count))


def test_no_target_is_in_its_pool_when_the_pool_of_the_protocol_is_too_small():
    views = [*PROTOCOL_TARGETS, *PROTOCOL_POOL[:2], 1, 2]
    targets, pool = choose_held_out(views, 3)
    assert len(targets) == 1
    assert not set(targets) & set(pool)
