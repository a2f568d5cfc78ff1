"""Flipped bits in checkpoints: each must be rejected, or leave the content unchanged."""

from __future__ import annotations

import random
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

from benchmarks.faults.processes import run_in_fork
from benchmarks.faults.tally import Tally
from benchmarks.faults.tiny_runs import fine_tuning, general_training, same, write_data
from utils.checkpoints import load_safely
from utils.errors import UserError

_MAX_SECONDS = 10


def run(tally: Tally, count: int, deadline: float, seed: int, folder: Path) -> None:
    """Flip bits alternately in a general checkpoint and in the file of a fine-tuned scene."""
    with tempfile.TemporaryDirectory() as work:
        data, log = Path(work) / "data", Path(work) / "log.txt"
        run_in_fork(lambda: int(not write_data(data)), log)
        general = general_training(data)
        trainings = general, fine_tuning(data, Path(work) / general.last)
        for training in trainings:
            run_in_fork(partial(training.resume, Path(work)), log)
        paths = [Path(work) / training.last for training in trainings]
        originals = [(path, path.read_bytes(), load_safely(path)) for path in paths]
        rng = random.Random(seed)
        for number in range(count):
            if time.monotonic() > deadline:
                break
            path, content, expected = originals[number % len(originals)]
            bit = rng.randrange(8 * len(content))
            outcome, failures = _read_flipped(path, content, expected, bit)
            tally.add(f"{path.name}, {outcome}", failures)
            if failures:
                (folder / f"{path.name}-{seed}-bit{bit}").write_bytes(path.read_bytes())


def _read_flipped(path: Path, content: bytes, expected: object, bit: int) -> tuple[str, list[str]]:
    """Write the content with one bit flipped and read it; return the outcome and failures."""
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    start = time.process_time()
    try:
        outcome, failures = "read", [] if same(load_safely(path), expected) else ["other"]
    except UserError as error:
        outcome, failures = "rejected", [] if path.name in str(error) else ["other"]
    except Exception:  # noqa: BLE001 - Any other exception is a failure.
        traceback.print_exc()
        outcome, failures = "not caught", ["tracebacks"]
    slow = time.process_time() - start > _MAX_SECONDS
    return outcome, [*failures, "hangs"] if slow else failures
