import json

import pytest
import torch

from datasets.config import DataChoice
from datasets.protocols import Protocol, Region, plan_task
from evaluation.rendering import ViewResult
from evaluation.report import (
    format_table,
    full_report,
    mean_figures,
    scene_report,
    table,
    write_json,
)
from evaluation.scores import SCORES, ViewImages
from utils.errors import UserError


def result(target, psnr, depth=None):
    black, blank = torch.zeros(3, 8, 8), torch.zeros(8, 8)
    images = ViewImages(black, blank, blank, black, blank, blank > 0)
    scores = dict.fromkeys(SCORES) | {"psnr": psnr, "depth_abs_err": depth}
    return ViewResult(target, (0, 1), "full frame", scores, images, 0.5, 1.5)


def report_of(scene, subset, *results):
    protocol = Protocol(tuple(result.target for result in results), scene.view_ids, Region())
    return scene_report(plan_task(scene, protocol, DataChoice(n_views=2), subset), results)


def test_means_leave_out_what_is_not_known(drawn_scene):
    row = report_of(drawn_scene, None, result(2, 20.0), result(3, 30.0, 0.25))
    assert row["psnr"] == 25.0 and row["depth_abs_err"] == 0.25 and row["lpips"] is None
    assert row["render_seconds"] == 1.5 and row["encode_seconds"] == 0.5
    assert [view["view"] for view in row["views"]] == [2, 3]
    assert row["views"][0]["lpips"] is None and row["views"][0]["sources"] == [0, 1]
    assert mean_figures([row, row]) == {name: row[name] for name in mean_figures([row])}


def test_every_scene_counts_the_same_and_subsets_have_means_of_their_own(drawn_scene):
    rows = {
        "a": report_of(drawn_scene, "plain", result(2, 10.0), result(3, 10.0), result(4, 10.0)),
        "b": report_of(drawn_scene, "rich", result(2, 40.0)),
    }
    report = full_report(rows, {"n_views": 3})
    assert report["mean"]["psnr"] == 25.0
    subsets = {name: row["psnr"] for name, row in report["subsets"].items()}
    assert subsets == {"plain": 10.0, "rich": 40.0}
    lines = list(table(report))
    assert [line.split()[0] for line in lines[1:]] == "a b mean, mean, mean counted:".split()
    assert "25.00" in lines[5] and "full frame" in lines[6]
    assert len({len(line) for line in lines[:6]}) == 1


def test_json_is_strict_and_replaces_the_file_as_a_whole(drawn_scene, tmp_path):
    path = tmp_path / "new" / "figures.json"
    rows = {"a": report_of(drawn_scene, None, result(2, 100 / 3))}
    report = full_report(rows, {"settings": 1})
    write_json(report, path)
    read = json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(text))
    assert read == report and read["mean"]["psnr"] == 33.3333 and "subsets" not in read
    assert [file.name for file in path.parent.iterdir()] == ["figures.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        write_json(report, tmp_path / "file" / "x.json")


def test_tables_are_aligned_and_show_what_is_unknown():
    rows = {"a": {"x": 0.5, "y": None, "z": 1}, "longer": {"x": 12.25}}
    lines = list(format_table(rows, [("x", "share %", 100.0, 1), ("y", "y", 1.0, 3)]))
    assert lines == ["        share %  y", "a          50.0  -", "longer   1225.0  -"]
