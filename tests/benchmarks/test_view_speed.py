"""The speed of rendering as users measure it."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_times_every_step_of_the_shipped_model():
    command = [sys.executable, "-m", "benchmarks.view_speed", "--size", "32", "40"]
    result = subprocess.run(
        [*command, "--repeats", "1"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    times = dict(re.findall(r"^(\w+) +([\d.]+) ms$", result.stdout, re.MULTILINE))
    assert list(times) == ["encode", "look", "render"]
    assert all(float(value) > 0 for value in times.values())
