"""One fine-tuning run from its settings to its files."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch

from datasets.protocols import SceneSplit, SceneTask, read_split
from evaluation.perceptual import PerceptualDistance, find_perceptual_weights
from evaluation.pictures import save_pictures
from evaluation.report import full_report, scene_report, table, write_json
from training.finetuning_config import FineTuningConfig, SceneRunConfig
from training.finetuning_log import RunRecord
from training.finetuning_loop import SceneTraining, StopSignals
from training.finetuning_setup import resume, resumed_config, start
from training.finetuning_validation import TestViews
from utils.devices import choose_devices
from utils.errors import NonFiniteTrainingError, TrainingInterrupted
from utils.files import check_output_folder

logger = logging.getLogger(__name__)

_LOG_EVERY = 100


def run_finetuning(config: FineTuningConfig) -> str:
    """Fine-tune one scene; return its figures and where everything is.

    Raises:
        UserError: Bad input, before any long work.
        NonFiniteTrainingError: Gradients stayed non-finite for too many steps.
        TrainingInterrupted: The run was told to stop and has saved.
    """
    given = config.run
    if given.ckpt:
        config = resumed_config(config)
    config = replace(config, data=config.data.recognised())
    split = read_split(config.data, config.data.n_views)
    folder = check_output_folder(_folder(given, config.run, split.scene.name))
    device = choose_devices(config.run.accelerator)[0]
    record = RunRecord(folder)
    views, held_out = (part.to(device) for part in (split.training_views(), split.test_views()))
    begin = (resume if config.run.ckpt else start)(config, split, views)
    bf16 = _uses_bf16(config, device)
    training = SceneTraining(
        *(begin.scene, views.masks, config.step, config.optimizer, config.run.seed, bf16)
    )
    tests = TestViews(held_out, split.test_ids, split.region, config.run.chunk, bf16)
    record.begin(begin, config.run.ckpt)
    if begin.training:
        training.restore(begin.training["progress"])
    with StopSignals() as signals:
        _train(training, tests, record, config, signals)
    verdict = record.finish(training)
    with training.average.standing_in():
        figures = _figures(split, training, tests, record)
    return "\n".join([*figures, verdict])


def _folder(given: SceneRunConfig, run: SceneRunConfig, scene: str) -> Path:
    """Return where a run writes: a resumed one where it was found, unless told otherwise."""
    usual, ckpt = SceneRunConfig(), Path(given.ckpt or "").resolve()
    elsewhere = (given.expname, given.save_dir) != (usual.expname, usual.save_dir)
    if ckpt.parent.name == "ckpts" and not elsewhere:
        return ckpt.parent.parent
    return Path(run.save_dir) / scene / (run.expname or f"vggt_finetune_{scene}")


def _train(
    training: SceneTraining,
    tests: TestViews,
    record: RunRecord,
    config: FineTuningConfig,
    signals: StopSignals,
) -> None:
    if training.step == 0:
        _validate(training, tests, record)
    squared_error, steps = torch.zeros((), device=training.masks.device), 0
    while training.step < config.optimizer.num_steps:
        try:
            squared_error += training.advance()
        except NonFiniteTrainingError:
            record.save(training)
            raise
        step, steps = training.step, steps + 1
        if step % _LOG_EVERY == 0:
            record.log_training(step, squared_error.item() / steps)
            squared_error.zero_()
            steps = 0
        last = step == config.optimizer.num_steps
        if last or step % config.run.val_every == 0:
            _validate(training, tests, record)
        if last or signals.received or step % config.run.save_every == 0:
            record.save(training)
        if signals.received:
            raise TrainingInterrupted(signals.received, record.latest)


def _validate(training: SceneTraining, tests: TestViews, record: RunRecord) -> None:
    with training.average.standing_in():
        with record.paused():
            rendered = tests.render(training.scene)
            psnr = tests.mean_psnr(rendered)
        record.validated(training, psnr, rendered[0], tests.ids[0])


def _figures(
    split: SceneSplit, training: SceneTraining, tests: TestViews, record: RunRecord
) -> list[str]:
    """Measure as evaluation does, write ``metrics.json`` and pictures, return the table."""
    weights = find_perceptual_weights()
    perceptual = PerceptualDistance(weights, training.masks.device) if weights else None
    results = tests.results(training.scene, perceptual, split.train_ids)
    sources = tuple(result.sources for result in results)
    task = SceneTask(split.scene, split.test_ids, sources, split.region, pool=split.train_ids)
    save_pictures(record.folder / "pictures", task, results)
    report = full_report({split.scene.name: scene_report(task, results)}, {"step": record.kept})
    write_json(report, record.folder / "metrics.json")
    return list(table(report))


def _uses_bf16(config: FineTuningConfig, device: torch.device) -> bool:
    if config.run.precision == "auto":
        return device.type == "cuda"
    return config.run.precision == "bf16-mixed"
