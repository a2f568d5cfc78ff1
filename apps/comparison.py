"""Comparison of models on the same views: load, evaluate, draw, tabulate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from apps.compare import ComparisonConfig
from datasets.config import DataChoice
from datasets.protocols import SceneTask
from evaluation.pictures import comparison_frames, comparison_sheet
from evaluation.rendering import Renderer, TestViews, ViewResult, evaluate_scene
from evaluation.report import format_table, full_report, scene_report, write_json
from evaluation.run import read_tasks
from evaluation.scores import ImageDistance, find_perceptual_distance
from models.checkpoints.general import read_model_file
from models.checkpoints.scene_file import FinetunedScene, header_of, load_finetuned, read_scene_file
from models.scenes.renderable_scene import is_tuned_scene
from training.config import FineTuningConfig
from training.training_scenes import TrainingScenes
from utils.config import settings_from_plain
from utils.devices import choose_devices
from utils.errors import UserError
from utils.files import check_output_folder
from utils.images import save_small_image
from utils.video import write_video

_MAX_IMAGE_BYTES = 3 * 2**20
_COLUMNS = (
    ("view_count", "views", 1.0, 0),
    ("psnr", "PSNR", 1.0, 2),
    ("seen_psnr", "PSNR seen", 1.0, 2),
    ("ssim", "SSIM", 1.0, 3),
    ("lpips", "LPIPS", 1.0, 3),
    ("depth_abs_err", "depth err", 1.0, 4),
    ("encode_seconds", "encode s", 1.0, 3),
    ("render_seconds", "render s", 1.0, 3),
    ("memory_gib", "GiB", 1.0, 2),
)


@dataclass(frozen=True)
class ComparedModel:
    """A model or a fine-tuned scene, with its label and the scenes that it was trained on."""

    name: str
    model: Renderer | FinetunedScene
    trained_on: TrainingScenes

    def evaluate(
        self, task: SceneTask, chunk: int | None, perceptual: ImageDistance | None
    ) -> list[ViewResult]:
        """Render and measure the target views of a scene."""
        if isinstance(self.model, Renderer):
            return evaluate_scene(task, [self.model], perceptual)
        return _evaluate_tuned(self.name, self.model, task, chunk, perceptual)


def run_comparison(config: ComparisonConfig) -> str:
    """Evaluate every model, write metrics and images, and return the table."""
    out = check_output_folder(config.out, "--out")
    device = choose_devices(config.device)[0]
    models = _load_models(config, device)
    data, rows = config.data, {}
    if tuned := next((path for path in config.ckpts if is_tuned_scene(path)), None):
        data = _data_of_tuned(tuned, data)
    perceptual = find_perceptual_distance(config.lpips_weights, device)
    reports: dict[str, dict[str, Any]] = {model.name: {} for model in models}
    for task in read_tasks(data, config.held_out, device):
        results, scene = {}, task.scene.name
        for model in models:
            with _peak_memory(device) as memory:
                results[model.name] = model.evaluate(task, config.chunk, perceptual)
            trained = scene in model.trained_on
            row = {**scene_report(task, results[model.name]), **memory, "trained_on": trained}
            reports[model.name][scene] = row
            label = f"{scene}, {model.name}{' (trained on it)' if trained else ''}"
            rows[label] = {**row, "view_count": len(task.targets)}
        _draw(config, out, task, results)
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    settings = {"ckpts": config.ckpts, "device": device_name, "torch": torch.__version__}
    full = {name: full_report(scenes, settings) for name, scenes in reports.items()}
    write_json({"models": full}, out / "comparison.json")
    rows |= {f"mean, {name}": report["mean"] for name, report in full.items()}
    notes = [f"{model.name}: {model.trained_on.text}" for model in models]
    return "\n".join([*format_table(rows, _COLUMNS), *notes, f"metrics and images are in {out}"])


def _load_models(config: ComparisonConfig, device: torch.device) -> list[ComparedModel]:
    names: list[str] = []
    models = []
    for path, label in zip(config.ckpts, config.names or map(_run_name, config.ckpts), strict=True):
        # Runs can have the same name.
        names.append(label if label not in names else f"{label} ({len(names) + 1})")
        if is_tuned_scene(path):
            model = load_finetuned(path, device)
            trained_on = TrainingScenes.of_tuned(model.header.scene)
        else:
            checkpoint = read_model_file(path).with_overrides(config.vggt_path)
            model = Renderer(checkpoint.build_model(device), device, config.chunk, config.bf16)
            trained_on = TrainingScenes.of_general(path)
        models.append(ComparedModel(names[-1], model, trained_on))
    return models


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[dict[str, float | None]]:
    """Yield a row whose ``memory_gib`` becomes the peak of newly allocated GPU memory."""
    row: dict[str, float | None] = {"memory_gib": None}
    if device.type != "cuda":
        yield row
        return
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield row
    row["memory_gib"] = (torch.cuda.max_memory_allocated(device) - before) / 2**30


def _draw(
    config: ComparisonConfig,
    out: Path,
    task: SceneTask,
    results: Mapping[str, list[ViewResult]],
) -> None:
    path = out / f"{task.scene.name}.{config.pictures}"
    if config.pictures == "mp4":
        write_video(path, comparison_frames(task.scene, results, config.height), fps=1.0)
    elif config.pictures != "none":
        sheet = comparison_sheet(task.scene, results, config.height)
        save_small_image(path, sheet, _MAX_IMAGE_BYTES)


def _data_of_tuned(path: str, chosen: DataChoice) -> DataChoice:
    """Fill in the data and views of a fine-tuned scene where none were chosen."""
    header = header_of(read_scene_file(path), path)
    settings = settings_from_plain(FineTuningConfig, header.settings, f"{path}: settings")
    targets = chosen.targets or header.test_ids
    if chosen == replace(DataChoice(), targets=chosen.targets):
        chosen = settings.data
    return replace(chosen, targets=targets, sources=chosen.sources or header.train_ids)


def _evaluate_tuned(
    name: str,
    tuned: FinetunedScene,
    task: SceneTask,
    chunk: int | None,
    perceptual: ImageDistance | None,
) -> list[ViewResult]:
    if tuned.header.scene != task.scene.name:
        raise UserError(
            f"{name}: was fine-tuned on {tuned.header.scene!r}, not on {task.scene.name!r}; "
            f"choose its scene with --datadir and --scan {tuned.header.scene}"
        )
    if seen := [view for view in task.targets if view in tuned.header.train_ids]:
        raise UserError(
            f"{name}: was fine-tuned on view {seen[0]}; its test views are --targets "
            f"{' '.join(map(str, tuned.header.test_ids))}"
        )
    device = tuned.scene.images.device
    views = task.scene.load_views(task.targets).to(device)
    tests = TestViews(views, task.targets, task.region, chunk, device.type == "cuda")
    return tests.results(tuned.scene, tuned.header.train_ids, perceptual)


def _run_name(path: str) -> str:
    """Return the name of a checkpoint's run folder, or of the file for MVSNeRF's checkpoint."""
    folder = Path(path)
    if folder.suffix == ".tar" and not is_tuned_scene(path):
        return folder.stem
    if folder.suffix:
        folder = folder.parent
    while folder.name == "ckpts" or folder.name.startswith("epoch="):
        folder = folder.parent
    return folder.name or path
