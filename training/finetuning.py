"""A fine-tuning run: its scene, its trainer, its figures."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from dataclasses import asdict
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
from models.checkpoint import header_of, read_scene_file
from models.photo_cameras import ensure_cameras
from models.tunable_scene import TunableScene
from training.callbacks import GradientGuard
from training.checkpointing import SceneCheckpointIO, folder_of_one_run, restored
from training.config import FineTuningConfig, SceneRunConfig
from training.curves import curve_logger
from training.finetuning_module import FineTuningModule, MVSNeRFTuningModule
from training.finetuning_scene import encode_scene, resume_scene, tuning_module
from training.scene_log import SceneLog
from utils.config import differing_settings, settings_from_plain
from utils.devices import choose_devices, choose_precision
from utils.errors import UserError
from utils.files import check_output_folder, from_repository

logger = logging.getLogger(__name__)

_TIMED_STEPS = 3
_REMEDY = (
    "What was learnt before is in latest.tar. Look at the photos and their cameras, or start anew "
    "with a lower --lrate and --lrate_maps, or with --precision 32-true."
)
_OURS = ("expname", "save_dir", "init_ckpt", "vggt_path", "device", "chunk")
"""Settings that a resumed run takes from the command line where they are given there."""
_OUR_RATES = ("lrate", "lrate_maps", "warmup_steps")
"""Those of the optimiser that do so, from the next step on."""


def run_finetuning(config: FineTuningConfig) -> str:
    """Fine-tune one scene; return its figures and where everything is."""
    started, given = time.perf_counter(), config.run
    if given.ckpt:
        config = resumed_config(config)
    config = dataclasses.replace(config, data=config.data.recognised())
    device = choose_devices(config.run.device)[0]
    ensure_cameras(config.data, device)
    split = read_split(config.data, config.data.n_views)
    folder = check_output_folder(_folder(given, config.run, split.scene.name))
    with folder_of_one_run(folder):
        return _finetune(config, split, folder, device, started)


def _finetune(
    config: FineTuningConfig, split: SceneTask, folder: Path, device: torch.device, started: float
) -> str:
    run = config.run
    precision = choose_precision(run.precision, device.type)
    views = split.training_views().to(device)
    if not views.masks.any():
        raise UserError(
            f"Scene {split.scene.name!r}: no pixel of its {len(split.pool)} training views counts, "
            "since their masks are black. Correct the masks, or remove them."
        )
    check_valid_pixels(split)
    held_out = split.scene.load_views(split.targets).to(device)
    open_scene = resume_scene if run.ckpt else encode_scene
    scene, header = open_scene(config, split, views)
    if config.optimizer.max_seconds and not run.ckpt:
        timed = tuning_module(scene, views.masks, config).to(device)
        config = limited_in_time(config, timed, precision == "bf16-mixed")
        header = dataclasses.replace(header, settings=asdict(config))
    tests = TestViews(held_out, split.targets, split.region, run.chunk, precision == "bf16-mixed")
    log = SceneLog(folder, run, header, tests, started)
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
        logger=curve_logger(folder, config),
        callbacks=[GradientGuard(remedy=_REMEDY), log],
        plugins=[SceneCheckpointIO(folder, header)],
    )
    # A step draws its own windows: there are no batches to load.
    with restored(run.ckpt, trainer):
        trainer.fit(module, itertools.repeat(0), ckpt_path=run.ckpt, weights_only=True)
    scene.to(device)
    kept, verdict = log.finish(trainer, module)
    with module.average.in_place():
        figures = _figures(split, scene, tests, folder, kept)
    return "\n".join([*figures, verdict])


def limited_in_time(
    config: FineTuningConfig, module: FineTuningModule | MVSNeRFTuningModule, bf16: bool
) -> FineTuningConfig:
    """Return the settings with as many steps as fit into ``max_seconds``, by timing some."""
    wanted, clock = config.optimizer.max_seconds, []
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        with module.step_memory():
            with torch.autocast(module.device.type, torch.bfloat16, enabled=bf16):
                loss = module.training_step(None, 0)["loss"]
            loss.backward()
        if module.device.type == "cuda":
            torch.cuda.synchronize()
        clock.append(time.perf_counter() - started)
    module.zero_grad(set_to_none=True)
    # The first warms up.
    steps = max(round(wanted / min(clock)), 1)
    logger.info("%d steps of about %.2g s in %.0f s", steps, min(clock), wanted)
    every = max(steps // 2, 1)
    run = dataclasses.replace(config.run, val_every=every, save_every=every)
    optimizer = dataclasses.replace(config.optimizer, num_steps=steps)
    return dataclasses.replace(config, run=run, optimizer=optimizer)


def resumed_config(config: FineTuningConfig) -> FineTuningConfig:
    """Return the settings of the run that is resumed, and name chosen ones that do not count.

    Folder and data stay as they were unless the command line names others.
    """
    path = Path(str(config.run.ckpt))
    settings = header_of(read_scene_file(path), path).settings
    theirs = settings_from_plain(FineTuningConfig, settings, f"{path}: settings")
    chosen = _chosen(config, "run", _OURS)
    run = dataclasses.replace(theirs.run, ckpt=config.run.ckpt, **chosen)
    rates = _chosen(config, "optimizer", _OUR_RATES)
    optimizer = dataclasses.replace(theirs.optimizer, **rates)
    datadir = config.data.datadir
    chosen_data = _chosen(config, "data", ("datadir",)) and _is_there(datadir)
    if not chosen_data and _is_there(theirs.data.datadir):
        datadir = theirs.data.datadir
    data = dataclasses.replace(theirs.data, datadir=datadir)
    merged = dataclasses.replace(theirs, run=run, data=data, optimizer=optimizer)
    changed = differing_settings(asdict(optimizer), asdict(theirs.optimizer))
    if changed:
        told = ", ".join(f"{name}={ours!r}, not {before!r}" for name, ours, before in changed)
        logger.warning("resuming %s with %s from the next step on", path, told)
    named = {name for name, _, _ in differing_settings(asdict(config), asdict(FineTuningConfig()))}
    rows = [
        row
        for row in differing_settings(asdict(config), asdict(merged))
        if row[0] in named or row[0].rpartition(".")[2] in config.given
    ]
    if rows:
        told = ", ".join(f"{name}={theirs!r}, not {ours!r}" for name, ours, theirs in rows)
        logger.warning("%s decides: %s", path, told)
    return merged


def _chosen(config: FineTuningConfig, group: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return those of some settings that are given, or differ from what is usual."""
    ours, usual = getattr(config, group), getattr(FineTuningConfig(), group)
    return {
        name: getattr(ours, name)
        for name in names
        if name in config.given or getattr(ours, name) != getattr(usual, name)
    }


def _folder(given: SceneRunConfig, run: SceneRunConfig, scene: str) -> Path:
    """Return where a run writes: a resumed one where it was found, unless told otherwise."""
    usual, ckpt = SceneRunConfig(), Path(given.ckpt or "").resolve()
    elsewhere = (given.expname, given.save_dir) != (usual.expname, usual.save_dir)
    if ckpt.parent.name == "ckpts" and not elsewhere:
        return ckpt.parent.parent
    return Path(run.save_dir) / scene / (run.expname or f"vggt_finetune_{scene}")


def _is_there(datadir: str) -> bool:
    # A scan of DTU is named as if it was a folder of its own.
    folder = from_repository(datadir)
    return folder.exists() or is_part_of_folder("dtu", folder)


def _figures(
    split: SceneTask, scene: TunableScene, tests: TestViews, folder: Path, step: int
) -> list[str]:
    """Measure as evaluation does, write ``metrics.json`` and pictures, return the table."""
    perceptual = find_perceptual_distance(device=scene.images.device)
    results = tests.results(scene, split.pool, perceptual)
    sources = tuple(result.sources for result in results)
    task = dataclasses.replace(split, sources=sources)
    save_pictures(folder / "pictures", task, results)
    report = full_report({split.scene.name: scene_report(task, results)}, {"step": step})
    write_json(report, folder / "metrics.json")
    return list(table(report))
