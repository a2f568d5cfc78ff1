"""Single flipped bits of checkpoints: refused, or read as what was written."""

from __future__ import annotations

import random
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

from benchmarks.faults.processes import run_whole
from benchmarks.faults.table import Tally
from benchmarks.faults.tiny_runs import fine_tuning, general_training, same, write_data
from utils.checkpoints import load_safely
from utils.errors import UserError

_SECONDS = 10


def run_flips(tally: Tally, count: int, deadline: float, seed: int, folder: Path) -> None:
    """Flip bits of a general checkpoint and of a scene file in turns."""
    with tempfile.TemporaryDirectory() as work:
        data, log = Path(work) / "data", Path(work) / "log.txt"
        run_whole(lambda: int(not write_data(data)), log)
        general = general_training(data)
        scene = fine_tuning(data, Path(work) / general.last)
        for run in (general, scene):
            run_whole(partial(run.go_on, Path(work)), log)
        files = [Path(work) / run.last for run in (general, scene)]
        wholes = [(path, path.read_bytes(), load_safely(path)) for path in files]
        draw = random.Random(seed)
        for number in range(count):
            if time.monotonic() > deadline:
                break
            path, content, meaning = wholes[number % len(wholes)]
            bit = draw.randrange(8 * len(content))
            outcome, wrong = read_flipped(path, content, meaning, bit)
            tally.add(f"{path.name}, {outcome}", wrong)
            if wrong:
                (folder / f"{path.name}-{seed}-bit{bit}").write_bytes(path.read_bytes())


def read_flipped(path: Path, content: bytes, meaning: object, bit: int) -> tuple[str, list[str]]:
    """Write a file with one bit flipped and read it; return how that went and what was wrong."""
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    started = time.process_time()
    try:
        outcome, wrong = "read", [] if same(load_safely(path), meaning) else ["other"]
    except UserError as error:
        outcome, wrong = "refused", [] if path.name in str(error) else ["other"]
    except Exception:  # noqa: BLE001 - Any other one is a fault.
        traceback.print_exc()
        outcome, wrong = "not caught", ["tracebacks"]
    return outcome, [*wrong, *(["hangs"] if time.process_time() - started > _SECONDS else [])]
