"""Short versions of the campaigns: every fault of these few is survived."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.mark.slow
def test_stopped_runs(tmp_path):
    rows = totals("kills", "--count", 6, "--out", tmp_path)
    assert rows and all(row[0] == row[1] and not any(row[2:]) for row in rows.values()), rows
