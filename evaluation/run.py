"""Evaluation of a model on the scenes of its settings."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from datasets.config import DataChoice, HeldOutScenes
from datasets.procedural.held_out import world_tasks
from datasets.protocols import SceneTask, check_valid_pixels, scene_tasks
from evaluation.config import EvaluationConfig
from evaluation.pictures import save_pictures
from evaluation.rendering import Renderer, evaluate_scene
from evaluation.report import Report, full_report, scene_report, table, write_json
from evaluation.scores import find_perceptual_distance
from models.checkpoints.general import read_model_file
from models.scenes.photo_cameras import ensure_cameras
from utils.cameras import LengthUnit
from utils.devices import choose_devices
from utils.errors import UserError
from utils.files import check_output_file, check_output_folder

logger = logging.getLogger(__name__)


def run_evaluation(config: EvaluationConfig) -> str:
    """Evaluate, write report and pictures, and return the table."""
    out = check_output_file(config.output.out, "--out")
    if config.output.save_images:
        check_output_folder(config.output.save_images, "--save_images")
    report = evaluate(config)
    write_json(report, out)
    return "\n".join([*table(report), f"all figures are in {out}"])


def evaluate(config: EvaluationConfig) -> Report:
    """Return the report of all scenes; write only pictures, if requested."""
    devices = choose_devices(config.model.device, config.model.devices)
    checkpoint = read_model_file(config.model.ckpt).with_overrides(
        config.model.vggt_path, **asdict(config.sampling)
    )
    tasks = read_tasks(config.data, config.held_out, devices[0])
    perceptual = find_perceptual_distance(config.output.lpips_weights, devices[0])
    chunk, bf16 = config.model.chunk, config.model.bf16
    renderers = [
        Renderer(checkpoint.build_model(device), device, chunk, bf16) for device in devices
    ]
    scenes, unit = {}, LengthUnit()
    for task in tasks:
        check_valid_pixels(task)
        results = evaluate_scene(task, renderers, perceptual)
        row, unit = scene_report(task, results), task.scene.unit
        region = row["views"][0]["region"]
        logger.info("%s: PSNR %.2f, %s", task.scene.name, row["psnr"], region)
        scenes[task.scene.name] = row
        if config.output.save_images:
            save_pictures(Path(config.output.save_images), task, results)
    settings = {
        **asdict(config),
        "checkpoint": checkpoint.describe(),
        "lpips": str(perceptual.weights) if perceptual else "left out: no weights on this machine",
        "ssim": "scikit-image, 7x7 uniform window, data range 1",
        "depth_unit": f"{unit.factor:g} {unit.name}" if unit.factor != 1 else "the scene's own",
        "device": torch.cuda.get_device_name(devices[0]) if devices[0].type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    return full_report(scenes, settings)


def read_tasks(
    data: DataChoice, held_out: HeldOutScenes, device: torch.device
) -> Iterable[SceneTask]:
    """Return the scenes of an evaluation; images are read, or worlds rendered, on iteration."""
    if data.dataset_name == "procedural":
        return world_tasks(held_out, data, device)
    ensure_cameras(data, device)
    tasks = scene_tasks(data)
    names = [task.scene.name for task in tasks]
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{data.datadir}: two scenes are named {duplicate!r}; evaluate each alone")
    return tasks
