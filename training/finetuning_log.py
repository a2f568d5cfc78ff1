"""What a run leaves behind: its curve, pictures, TensorBoard logs and the files of the scene."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from evaluation.scores import ViewImages
from models.scene_file import SceneHeader, read_scene_file, scene_content
from training.finetuning_loop import Best, SceneTraining
from training.finetuning_setup import Start
from training.finetuning_validation import save_strip
from utils.checkpoints import save_atomically
from utils.errors import UserError
from utils.files import set_aside

logger = logging.getLogger(__name__)

_HEADING = "   step  seconds  training  test PSNR    gain"


class RunRecord:
    """Keeps the clock and the best scene, and writes everything that a run writes.

    The clock starts with this object: it counts reading, encoding, validating and saving. Training
    time, beside it, leaves out what is ``paused``.
    """

    def __init__(self, folder: Path) -> None:
        """Start the clock.

        Args:
            folder: Of the run.
        """
        self.folder = folder
        self.latest = folder / "ckpts" / "latest.tar"
        self.best_path = folder / "ckpts" / "best.tar"
        self.curve: list[dict[str, Any]] = []
        self.kept = 0
        """Step of the weights that a finished run leaves."""
        self._best = Best()
        self._header: SceneHeader | None = None
        self._started, self._paused, self._saved_best = time.perf_counter(), 0.0, -1
        self._logs = SummaryWriter(str(folder / "logs"))

    def begin(self, begin: Start, resumed_from: str | None) -> None:
        """Take the scene's header and, of a resumed run, its curve and its best.

        What an earlier run left in the folder of a new one is kept under another name.
        """
        self._header = begin.header
        if not resumed_from or Path(resumed_from).resolve() != self.latest.resolve():
            set_aside(self.latest)
            set_aside(self.best_path)
        # Before training starts everything counts as preparation.
        self._paused = time.perf_counter() - self._started
        if resumed_from:
            self._restore(begin.training, Path(resumed_from))
        logger.info("%s", _HEADING)
        for row in self.curve:
            self._print(row)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out of the training time what happens inside."""
        started = time.perf_counter()
        yield
        self._paused += time.perf_counter() - started

    def log_training(self, step: int, squared_error: float) -> None:
        """Note the training error."""
        self._logs.add_scalar("train/PSNR", -10 * math.log10(max(squared_error, 1e-10)), step)

    def validated(
        self, training: SceneTraining, psnr: float, view: ViewImages, number: int
    ) -> None:
        """Note a validation, keep the scene if it is the best, and write a picture."""
        seconds = time.perf_counter() - self._started
        row = {
            "step": training.step,
            "seconds": round(seconds, 2),
            "training_seconds": round(seconds - self._paused, 2),
            "psnr": psnr,
        }
        self.curve.append(row)
        self._print(row)
        self._best.offer(training.scene, training.step, psnr)
        self._logs.add_scalar("val/PSNR", psnr, training.step)
        name = f"step={training.step:07d}_view{number:03d}.jpg"
        with self.paused():
            try:
                save_strip(self.folder / "pictures" / name, view, training.scene.near_far.tolist())
                self._write_curve()
            except (OSError, UserError) as error:
                # What was learnt is worth more, and is yet to be saved.
                logger.warning("%s: cannot write curve and picture (%s)", self.folder, error)

    def save(self, training: SceneTraining) -> None:
        """Write ``best.tar``, if there is a new best, and ``latest.tar``, which speaks of it."""
        with self.paused():
            progress = {
                "progress": training.state(),
                "curve": self.curve,
                "seconds": time.perf_counter() - self._started,
                "paused": self._paused,
                "best": {"step": self._best.step, "psnr": self._best.psnr},
            }
            with training.average.standing_in():
                state = training.scene.scene_state()
            if self._best.step != self._saved_best:
                self._write(self.best_path, self._best.state, {})
                self._saved_best = self._best.step
            self._write(self.latest, state, progress)

    def finish(self, training: SceneTraining) -> str:
        """Compare with the start; below it, take the best weights back. Return the verdict."""
        first, last = self.curve[0], self.curve[-1]
        gain = last["psnr"] - first["psnr"]
        verdict = (
            f"PSNR {first['psnr']:.2f} before, {last['psnr']:.2f} after {last['seconds']:.0f} s"
        )
        self.kept = training.step
        if not self.latest.exists():
            # A finished run that goes on elsewhere had no step to save after.
            self.save(training)
        # Not finite is below, too.
        if not gain >= 0 and self._best.state:
            training.scene.load_scene_state(self._best.state)
            training.average.restart()
            self.save(training)
            self.kept = self._best.step
            verdict = (
                f"fine-tuning ended below where it started ({last['psnr']:.2f} < "
                f"{first['psnr']:.2f} dB); latest.tar holds the best weights instead, of step "
                f"{self._best.step} ({self._best.psnr:.2f} dB)"
            )
        self._logs.close()
        return f"{verdict}\nthe scene is in {self.latest}, the best one in {self.best_path}"

    def _restore(self, training: dict[str, Any], path: Path) -> None:
        self.curve = training["curve"]
        self._started = time.perf_counter() - training["seconds"]
        self._paused = training["paused"]
        # An earlier run's latest.1.tar has its best.1.tar.
        number = path.name.removeprefix("latest") if path.name.startswith("latest") else ".tar"
        best, file = training["best"], path.with_name(f"best{number}")
        if file.is_file():
            state = read_scene_file(file)["state"]
            self._best = Best(best["psnr"], best["step"], state)
            self._saved_best = best["step"] if file == self.best_path else -1
        else:
            logger.warning("%s is missing: only what comes now can be the best", file)

    def _write(self, path: Path, state: dict[str, Any], training: dict[str, Any]) -> None:
        assert self._header is not None
        save_atomically(scene_content(self._header, state, training), path)

    def _write_curve(self) -> None:
        path = self.folder / "curve.json"
        partial = path.with_name(".curve.json.partial")
        partial.write_text(json.dumps(self.curve, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    def _print(self, row: dict[str, Any]) -> None:
        gain = row["psnr"] - self.curve[0]["psnr"]
        logger.info(
            "%7d %8.1f %9.1f %10.2f %+7.2f",
            *(row["step"], row["seconds"], row["training_seconds"], row["psnr"], gain),
        )
