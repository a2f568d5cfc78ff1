"""Memory by number of views and size."""

import json
import sys

import pytest
import torch
from commands import status_of

from benchmarks import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's peak")


def test_each_stage_is_measured_and_grows(tiny_checkpoint, tmp_path, caplog):
    caplog.set_level("INFO")
    out = tmp_path / "memory.json"
    flags = ["--views", 2, 5, "--heights", 64, 96, "--widths", 80, 128, "--batch_size", 64]
    assert status_of(memory.main, "--ckpt", tiny_checkpoint, "--out", out, *flags) == 0
    rows = json.loads(out.read_text())["mebibytes"]
    assert list(rows) == [f"{size}, {n} views" for size in ("80x64", "128x96") for n in (2, 5)]
    small, large = rows["80x64, 2 views"], rows["128x96, 5 views"]
    assert large["training"] > large["encode"] > small["encode"] > 0
    assert "128x96, 5 views" in caplog.text


def test_a_peak_is_that_of_the_job():
    device = torch.device("cpu")

    def job():
        torch.ones(40 << 20, dtype=torch.uint8)
        return torch.ones(8 << 20, dtype=torch.uint8)

    kept, peak = memory.peak_memory(device, job)
    assert len(kept) == 8 << 20 and 39 <= peak <= 60


def test_sizes_go_in_pairs(assert_refused):
    assert_refused(status_of(memory.main, "--heights", 64), ["go in pairs"])
