"""Short versions of the campaigns: every fault of these few is survived."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.faults import fuzz
from benchmarks.faults.parsers.all_parsers import all_parsers
from benchmarks.faults.parsers.samples import Parser
from benchmarks.faults.processes import failed_reference
from benchmarks.faults.tally import Tally
from datasets.formats.format_table import FORMATS
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
WHOLE = bytes(range(40))


def totals(*flags):
    """Run a campaign as users do, since forking needs a process that has not differentiated."""
    command = [sys.executable, "-m", "benchmarks.faults", *map(str, flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert run.returncode == 0 and "Traceback" not in run.stderr, run.stderr
    lines = run.stderr.splitlines()
    start = next(n for n, line in enumerate(lines) if line.split()[:1] == ["injected"])
    rows = [line.rsplit(maxsplit=7) for line in lines[start + 1 : -1]]
    return {row[0]: [int(number) for number in row[1:]] for row in rows}


@pytest.mark.parametrize(
    ("campaign", "count"), [("kills", 4), ("ranks", 1), ("flips", 60), ("fuzz", 1600)]
)
def test_all_of_a_few_are_survived(tmp_path, campaign, count):
    rows = totals(campaign, "--count", count, "--out", tmp_path)
    assert rows and all(row[0] == row[1] and not any(row[2:]) for row in rows.values()), rows
    injected = sum(row[0] for row in rows.values())
    # A stop counts by what stopped it and by its phase.
    assert injected >= (2 if campaign in ("kills", "ranks") else 1) * count


def test_every_format_has_a_parser():
    names = [parser.name for parser in all_parsers()]
    assert len(names) == len(set(names))
    assert {name.partition("/")[0] for name in names} >= FORMATS.keys()


def test_all_parsers_have_equally_many_turns_although_time_is_up(tmp_path, monkeypatch):
    parsers = [Parser(f"{name}.bin", WHOLE, lambda path: time.sleep(0.002)) for name in "abc"]
    monkeypatch.setattr(fuzz, "all_parsers", lambda: parsers)
    tally = Tally()
    fuzz.run(tally, 3000, time.monotonic() + 0.1, 0, tmp_path)
    assert len(tally.rows) == 3
    assert len({row["injected"] for row in tally.rows.values()}) == 1


def test_a_reference_that_fails_is_one_line_with_its_log(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("starting\nout of memory\n")
    said = str(failed_reference(None, 600, log))
    assert str(log) in said and "did not end within 600 s" in said and "out of memory" in said
    log.write_text("")
    assert "ended with status 3. " in str(failed_reference(3, 600, log))


def test_a_parser_that_fails_is_found(tmp_path, monkeypatch):
    def parse(path):
        content = path.read_bytes()
        if content == WHOLE:
            return content
        raise {0: UserError, 1: UserError}.get(len(content) % 3, IndexError)(f"{path}: damaged")

    monkeypatch.setattr(fuzz, "all_parsers", lambda: [Parser("a.bin", WHOLE, parse)])
    tally = Tally()
    fuzz.run(tally, 300, time.monotonic() + 60, 0, tmp_path)
    row = tally.rows["a.bin"]
    assert row["injected"] == 300 and 30 < row["tracebacks"] < 200
    assert row["survived"] == 300 - row["tracebacks"]
    kept = next(tmp_path.glob("a.bin-0-*"))
    assert "IndexError" in (kept / "why.txt").read_text() and (kept / "a.bin").is_file()
