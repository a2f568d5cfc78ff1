"""The table of quality against samples per ray."""

import json

import pytest
import torch
from commands import status_of

from benchmarks import samples_table
from evaluation.config import SamplingChoice

FEW = {
    "12 uniform": SamplingChoice(N_planes=8, N_samples=12, sampling_floor=1.0),
    "8+4": SamplingChoice(N_planes=8, N_samples=4),
}


@pytest.fixture
def tabulate(tiny_checkpoint, tmp_path, monkeypatch):
    """Run the script; returns its status and the figures, if there are any."""
    monkeypatch.setattr(samples_table, "SAMPLINGS", FEW)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def run(*argv):
        out = tmp_path / "table.json"
        flags = ["--ckpt", tiny_checkpoint, "--device", "cpu", "--out", out]
        status = status_of(samples_table.main, *flags, *argv)
        return status, json.loads(out.read_text()) if out.is_file() else None

    return run


def test_every_sampling_sees_the_same_scenes(tabulate, tiny_dtu, caplog):
    caplog.set_level("INFO")
    status, figures = tabulate("--datadir", tiny_dtu, "--targets", 5, "--image_scale", 0.5)
    assert status == 0
    rows = figures["rows"]
    assert list(rows) == list(FEW)
    chosen = [(row["N_planes"], row["N_samples"], row["sampling_floor"]) for row in rows.values()]
    assert chosen == [(8, 12, 1.0), (8, 4, 0.15)]
    for row in rows.values():
        assert list(row["scenes"]) == ["scan2"] and row["render_seconds"] > 0
        assert row["psnr"] == row["scenes"]["scan2"]["psnr"]
    assert rows["12 uniform"]["psnr"] != rows["8+4"]["psnr"]
    assert figures["settings"]["checkpoint"]["step"] == 7
    (line,) = (line for line in caplog.text.splitlines() if line.startswith("8+4 "))
    assert float(line.split()[1]) == pytest.approx(rows["8+4"]["psnr"], abs=0.006)


def test_subsets_of_procedural_worlds_have_lines_of_their_own(tabulate, caplog):
    caplog.set_level("INFO")
    flags = ["--num_worlds", 1, "--world_views", 4, "--image_size", 24, 32, "--world_targets", 1]
    status, figures = tabulate("--dataset_name", "procedural", *flags)
    assert status == 0
    assert list(figures["rows"]["8+4"]["subsets"]) == ["textured", "textureless"]
    assert "8+4, textureless" in caplog.text


def test_bad_input(tabulate, assert_refused):
    status, figures = tabulate("--datadir", "absent")
    assert_refused(status, ["no such data folder"])
    assert figures is None


def test_the_samplings_that_readers_are_shown():
    planes = [(row.N_planes, row.N_samples) for row in samples_table.SAMPLINGS.values()]
    assert planes == [(48, 32), (64, 3), (48, 8), (48, 4), (48, 3), (48, 2), (16, 3)]
