"""A fine-tuning run: settings, trainer and final report."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from datasets.formats.registry import is_part_of_folder
from datasets.protocols import SceneTask, check_valid_pixels, read_split
from evaluation.pictures import save_pictures
from evaluation.rendering import TestViews
from evaluation.report import full_report, scene_report, table, write_json
from evaluation.scores import find_perceptual_distance
from models.checkpoints.scene_file import header_of, read_scene_file
from models.scenes.photo_cameras import ensure_cameras
from models.scenes.scene_model import TunableScene
from training.callbacks import GradientGuard, tensorboard_logger
from training.checkpointing import exclusive_run_folder
from training.config import FineTuningConfig, SceneRunConfig
from training.finetuning.module import FineTuningModule, MVSNeRFTuningModule
from training.finetuning.run_log import RunLog, SceneCheckpointIO
from training.finetuning.scene import encode_scene, resume_scene, tuning_module
from training.resuming import checked_restore
from utils.config import differing_settings, settings_from_plain
from utils.devices import choose_devices, choose_precision
from utils.errors import UserError, short_repr
from utils.files import from_repository

logger = logging.getLogger(__name__)

_TIMED_STEPS = 3
_REMEDY = (
    "latest.tar holds these weights. Check the photos and their cameras, or start a new run with "
    "lower --lrate and --lrate_maps, or with --precision 32-true."
)
_RUN_OVERRIDES = ("expname", "save_dir", "init_ckpt", "vggt_path", "device", "chunk")
_OPTIMIZER_OVERRIDES = ("lrate", "lrate_maps", "warmup_steps")
"""Settings of a resumed run that the command line can change."""


def run_finetuning(config: FineTuningConfig) -> str:
    """Fine-tune one scene and return its final scores and files as text."""
    started, given = time.perf_counter(), config.run
    if given.ckpt:
        config = resumed_config(config)
    config = replace(config, data=config.data.recognised())
    device = choose_devices(config.run.device)[0]
    ensure_cameras(config.data, device)
    split = read_split(config.data, config.data.n_views)
    folder = _run_folder(given, config.run, split.scene.name)
    with exclusive_run_folder(folder):
        return _finetune(config, split, folder, device, started)


def _finetune(
    config: FineTuningConfig, split: SceneTask, folder: Path, device: torch.device, started: float
) -> str:
    run = config.run
    precision = choose_precision(run.precision, device.type)
    bf16 = precision == "bf16-mixed"
    views = split.training_views().to(device)
    if not views.masks.any():
        raise UserError(
            f"Scene {split.scene.name!r}: no pixel of its {len(split.pool)} training views counts, "
            "since their masks are black. Correct the masks, or remove them."
        )
    check_valid_pixels(split)
    test_views = split.scene.load_views(split.targets).to(device)
    open_scene = resume_scene if run.ckpt else encode_scene
    scene, header = open_scene(config, split, views)
    if config.optimizer.max_seconds and not run.ckpt:
        timed = tuning_module(scene, views.masks, config).to(device)
        config = limit_to_seconds(config, timed, bf16)
        header = replace(header, settings=asdict(config))
    tests = TestViews(test_views, split.targets, split.region, run.chunk, bf16)
    log = RunLog(folder, run, header, tests, started)
    module = tuning_module(scene, views.masks, config)
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        precision=precision,
        max_epochs=-1,
        max_steps=config.optimizer.num_steps,
        log_every_n_steps=100,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=tensorboard_logger(folder, config),
        callbacks=[GradientGuard(remedy=_REMEDY), log],
        plugins=[SceneCheckpointIO(folder, header)],
    )
    with checked_restore(run.ckpt, trainer):
        # The module draws its own windows, so that the data loader yields nothing of use.
        trainer.fit(module, itertools.repeat(0), ckpt_path=run.ckpt, weights_only=True)
    scene.to(device)
    step, verdict = log.finish(trainer, module)
    with module.average.in_place():
        lines = _write_report(split, scene, tests, folder, step)
    return "\n".join([*lines, verdict])


def limit_to_seconds(
    config: FineTuningConfig, module: FineTuningModule | MVSNeRFTuningModule, bf16: bool
) -> FineTuningConfig:
    """Return the settings with as many steps as fit into ``max_seconds``, by timing a few."""
    max_seconds, seconds = config.optimizer.max_seconds, []
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        with module.step_memory():
            with torch.autocast(module.device.type, torch.bfloat16, enabled=bf16):
                loss = module.training_step(None, 0)["loss"]
            loss.backward()
        if module.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    module.zero_grad(set_to_none=True)
    # The minimum, as the first step includes the warm-up of kernels.
    steps = max(round(max_seconds / min(seconds)), 1)
    logger.info("%d steps of about %.2g s in %.0f s", steps, min(seconds), max_seconds)
    period = max(steps // 2, 1)
    run = replace(config.run, val_every=period, save_every=period)
    return replace(config, run=run, optimizer=replace(config.optimizer, num_steps=steps))


def resumed_config(config: FineTuningConfig) -> FineTuningConfig:
    """Return the settings of the resumed run with the overrides of the command line.

    Warns of given settings without effect. A data folder that no longer exists is overridden, too.
    """
    path = Path(str(config.run.ckpt))
    settings = header_of(read_scene_file(path), path).settings
    theirs = settings_from_plain(FineTuningConfig, settings, f"{path}: settings")
    changes = differing_settings(asdict(config), asdict(FineTuningConfig()))
    given = config.given | {name.rpartition(".")[2] for name, _, _ in changes}
    run = _override(theirs.run, config.run, given.intersection(_RUN_OVERRIDES) | {"ckpt"})
    optimizer = _override(
        theirs.optimizer, config.optimizer, given.intersection(_OPTIMIZER_OVERRIDES)
    )
    data = theirs.data
    override = "datadir" in given and _exists(config.data.datadir)
    if override or not _exists(data.datadir):
        data = replace(data, datadir=config.data.datadir)
    merged = replace(theirs, run=run, data=data, optimizer=optimizer)
    if rows := differing_settings(asdict(optimizer), asdict(theirs.optimizer)):
        text = _overridden(rows)
        logger.warning("resuming %s with %s from the next step on", path, text)
    differing = differing_settings(asdict(config), asdict(merged))
    if rows := [row for row in differing if row[0].rpartition(".")[2] in given]:
        text = _overridden([(name, kept, ours) for name, ours, kept in rows])
        logger.warning("the settings of %s have priority: %s", path, text)
    return merged


def _overridden(rows: Sequence[tuple[str, Any, Any]]) -> str:
    """Format (name, value that counts, other value) rows in one line."""
    return ", ".join(
        f"{name}={short_repr(value)}, not {short_repr(other)}" for name, value, other in rows
    )


def _override(theirs: Any, ours: Any, names: Iterable[str]) -> Any:  # noqa: ANN401
    return replace(theirs, **{name: getattr(ours, name) for name in names})


def _run_folder(given: SceneRunConfig, run: SceneRunConfig, scene: str) -> Path:
    """Return the output folder; of a resumed run its present one, unless another name is given."""
    defaults, ckpt = SceneRunConfig(), Path(given.ckpt or "").resolve()
    renamed = (given.expname, given.save_dir) != (defaults.expname, defaults.save_dir)
    if ckpt.parent.name == "ckpts" and not renamed:
        return ckpt.parent.parent
    return Path(run.save_dir) / scene / (run.expname or f"vggt_finetune_{scene}")


def _exists(datadir: str) -> bool:
    # A scan of DTU is addressed like a folder, but is spread over several.
    folder = from_repository(datadir)
    try:
        return folder.exists() or is_part_of_folder("dtu", folder)
    except OSError:
        # No file can have such a name.
        return False


def _write_report(
    split: SceneTask, scene: TunableScene, tests: TestViews, folder: Path, step: int
) -> list[str]:
    """Evaluate the test views, write ``metrics.json`` and pictures, and return the table."""
    perceptual = find_perceptual_distance(device=scene.images.device)
    results = tests.results(scene, split.pool, perceptual)
    task = replace(split, sources=tuple(result.sources for result in results))
    save_pictures(folder / "pictures", task, results)
    report = full_report({split.scene.name: scene_report(task, results)}, {"step": step})
    write_json(report, folder / "metrics.json")
    return list(table(report))
