"""Check that every command of README.md works: python -m benchmarks.readme_commands.

The commands run in a copy of the project with small procedural data at the paths that they name,
and with additional flags that reduce their work. Each command is printed with its duration and
outcome. The exit status is not 0 if one failed. Installation and downloads are not checked.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stand_in_data import write_stand_ins
from utils.config import command
from utils.errors import UserError
from utils.settings import Positive, Settings

ROOT = Path(__file__).resolve().parents[1]
_CODE = re.compile(r"```bash\n(.*?)```|`(python [^`]+)`", re.DOTALL)
_SIZE = "--image_size 64 80"
_TRAINING = (
    f"{_SIZE} --batch_size 1024 --batches_per_epoch 2 --val_views 1 --num_workers 0 "
    "--vggt_path ckpts/vggt-mini --backbone_size 84 --min_sources 2 --max_sources 2 "
    "--scenes_per_batch 1 --val_worlds 1 --val_chunk 4096 --world_heights 64 --world_widths 80 "
    "--replay_batches 1 --visits 1 --world_rays 1 --device cpu --N_planes 8"
)
SMALLER = {
    "render_video": "--n_frames 2 --size 48 64",
    "apps.export_geometry": f"{_SIZE} --size 48 64 --max_renderings 3 --resolution 16",
    "reconstruct": "--n_frames 2 --size 48 64",
    "train_vggt_nerf_finetuning_pl": f"{_SIZE} --num_steps 2 --val_every 2 --batch_size 1024",
    "train_vggt_nerf_pl": f"--num_epochs 1 {_TRAINING}",
    "evaluate_vggt_nerf": f"{_SIZE} --targets 1",
    "view": "--height 48",
    "apps.inspect_data": "",
    "apps.compare": f"{_SIZE} --targets 1",
}
"""Flags that reduce a script's work; they follow, and thus override, those of the command."""
_RESUMED = "--num_epochs 2"
_DOWNLOADED = "ckpts/mvsnerf-v0.tar"
"""A checkpoint that users download; it is removed from the commands if it is missing."""
_ADDRESS = re.compile(r"http://[\w.:]+")


@dataclass(frozen=True)
class ReadmeConfig(Settings):
    """All settings of the check."""

    only: tuple[str, ...] = ()
    """run only commands that contain one of these texts; none: all"""
    folder: str = ""
    """folder for the copy and its logs; none: a temporary folder"""
    seconds: Positive = 900.0
    """time limit of a command"""


def commands_of(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of every ``python`` command on a page."""
    for block, inline in _CODE.findall(page.read_text(encoding="utf-8")):
        text = (block or inline).replace("\\\n", " ")
        for line in text.splitlines() if block else [text.replace("\n", " ")]:
            words = shlex.split(line, comments=True)
            if words[:1] == ["python"] and words[1:2] != ["-c"] and "..." not in words:
                yield words[1:]


def run_all(config: ReadmeConfig) -> str:
    """Run the commands, print a line per command, and return a summary."""
    chosen = [
        words
        for words in commands_of(ROOT / "README.md")
        if not config.only or any(word in " ".join(words) for word in config.only)
    ]
    if not chosen:
        raise UserError(f"--only {' '.join(config.only)}: README.md has no such command")
    with tempfile.TemporaryDirectory(prefix="readme-") as temporary:
        copy = Path(config.folder or temporary).resolve()
        copy_project(copy)
        if not (copy / "data/dtu").is_dir():
            write_stand_ins(copy)
        failed = [words for words in chosen if not _run_one(words, copy, config.seconds)]
    if failed:
        raise UserError(f"{len(failed)} of {len(chosen)} commands failed: {shlex.join(failed[0])}")
    skipped = "not checked: make install, make demo, hf download"
    return f"{len(chosen)} commands of README.md work; {skipped}"


def copy_project(target: Path) -> None:
    """Copy all files that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def smaller(words: list[str]) -> list[str]:
    """Add the flags that reduce a command's work, and replace the placeholder ``DIR``."""
    script = words[1] if words[0] == "-m" else words[0].removesuffix(".py")
    if script not in SMALLER:
        raise UserError(f"{shlex.join(words)}: {script} has no small size; add it to SMALLER")
    resumed = _RESUMED if script == "train_vggt_nerf_pl" and "--ckpt" in words else ""
    words = ["data/my_scenes" if word == "DIR" else word for word in words]
    if not (ROOT / _DOWNLOADED).is_file():
        words = [word for word in words if word != _DOWNLOADED]
    return [*words, *f"{SMALLER[script]} {resumed}".split()]


def _run_one(words: list[str], copy: Path, seconds: float) -> bool:
    """Run a command in the copy, print its outcome, and return whether it worked."""
    log = copy / "log.txt"
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, *smaller(words)],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            works = (_serves if words[0] == "view.py" else _succeeds)(process, log, seconds)
        finally:
            process.kill()
            process.wait()
    elapsed = time.perf_counter() - start
    outcome = "ok" if works else "FAILED"
    print(f"{outcome:<7}{elapsed:6.1f} s  python {shlex.join(words)}", flush=True)
    if not works:
        print("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]))
    return works


def _succeeds(process: subprocess.Popen[bytes], log: Path, seconds: float) -> bool:
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        print(f"{log}: still running after {seconds:g} s")
        return False


def _serves(process: subprocess.Popen[bytes], log: Path, seconds: float) -> bool:
    """Wait until a server, which does not end by itself, logs its address."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if _ADDRESS.search(log.read_text(encoding="utf-8", errors="replace")):
            return True
        time.sleep(0.5)
    return False


main = command(ReadmeConfig, run_all, __doc__)

if __name__ == "__main__":
    sys.exit(main())
