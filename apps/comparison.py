"""One comparison from its settings to its table and pictures."""

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

_MOST_BYTES = 3 * 2**20
"""A README with larger pictures opens slowly."""
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
class Competitor:
    """A model on its device, or a fine-tuned scene."""

    name: str
    renders: Renderer | FinetunedScene
    trained_on: TrainingScenes

    def results(
        self, task: SceneTask, chunk: int | None, perceptual: ImageDistance | None
    ) -> list[ViewResult]:
        """Render and measure the targets of a scene."""
        if isinstance(self.renders, Renderer):
            return evaluate_scene(task, [self.renders], perceptual)
        return _render_tuned(self.name, self.renders, task, chunk, perceptual)


def run_comparison(config: ComparisonConfig) -> str:
    """Render and measure with every model, draw, and return the table."""
    out = check_output_folder(config.out, "--out")
    device = choose_devices(config.device)[0]
    competitors = _load(config, device)
    data, rows = config.data, {}
    if tuned := next((path for path in config.ckpts if is_tuned_scene(path)), None):
        data = _data_of(tuned, data)
    perceptual = find_perceptual_distance(config.lpips_weights, device)
    reports: dict[str, dict[str, Any]] = {one.name: {} for one in competitors}
    for task in read_tasks(data, config.held_out, device):
        results, name = {}, task.scene.name
        for one in competitors:
            with _measured_memory(device) as memory:
                results[one.name] = one.results(task, config.chunk, perceptual)
            seen = task.scene.name in one.trained_on
            about = {"memory_gib": memory.get("gib"), "trained_on": seen}
            reports[one.name][name] = {**scene_report(task, results[one.name]), **about}
            label = f"{name}, {one.name}{' (trained on it)' if seen else ''}"
            rows[label] = {**reports[one.name][name], "view_count": len(task.targets)}
        _draw(config, out, task, results)
    settings = {"ckpts": config.ckpts, "device": _device_name(device), "torch": torch.__version__}
    full = {name: full_report(scenes, settings) for name, scenes in reports.items()}
    write_json({"models": full}, out / "comparison.json")
    rows |= {f"mean, {name}": report["mean"] for name, report in full.items()}
    notes = [f"{one.name}: {one.trained_on.text}" for one in competitors]
    return "\n".join([*format_table(rows, _COLUMNS), *notes, f"figures and pictures are in {out}"])


def _load(config: ComparisonConfig, device: torch.device) -> list[Competitor]:
    names: list[str] = []
    found = []
    for path, label in zip(config.ckpts, config.names or map(_run_name, config.ckpts), strict=True):
        # Two runs may have one name.
        names.append(label if label not in names else f"{label} ({len(names) + 1})")
        if is_tuned_scene(path):
            tuned = load_finetuned(path, device)
            found.append(Competitor(names[-1], tuned, TrainingScenes.of_tuned(tuned.header.scene)))
            continue
        checkpoint = read_model_file(path).with_overrides(config.vggt_path)
        renderer = Renderer(checkpoint.build_model(device), device, config.chunk, config.bf16)
        found.append(Competitor(names[-1], renderer, TrainingScenes.of_general(path)))
    return found


@contextmanager
def _measured_memory(device: torch.device) -> Iterator[dict[str, float]]:
    """Fill in ``gib``: the peak of a GPU's memory inside, beyond what was in use before."""
    memory: dict[str, float] = {}
    if device.type != "cuda":
        yield memory
        return
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    yield memory
    memory["gib"] = (torch.cuda.max_memory_allocated(device) - before) / 2**30


def _draw(
    config: ComparisonConfig,
    out: Path,
    task: SceneTask,
    results: Mapping[str, list[ViewResult]],
) -> None:
    drawn = task.scene, results, config.height
    path = out / f"{task.scene.name}.{config.pictures}"
    if config.pictures == "mp4":
        write_video(path, comparison_frames(*drawn), fps=1.0)
    elif config.pictures != "none":
        save_small_image(path, comparison_sheet(*drawn), _MOST_BYTES)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _data_of(path: str, chosen: DataChoice) -> DataChoice:
    """Complete what was chosen by the data and views of a fine-tuned scene."""
    header = header_of(read_scene_file(path), path)
    settings = settings_from_plain(FineTuningConfig, header.settings, f"{path}: settings")
    targets = chosen.targets or header.test_ids
    if chosen == replace(DataChoice(), targets=chosen.targets):
        chosen = settings.data
    return replace(chosen, targets=targets, sources=chosen.sources or header.train_ids)


def _render_tuned(
    name: str,
    tuned: FinetunedScene,
    task: SceneTask,
    chunk: int | None,
    perceptual: ImageDistance | None,
) -> list[ViewResult]:
    if tuned.header.scene != task.scene.name:
        raise UserError(
            f"{name}: was fine-tuned on {tuned.header.scene!r}, not on {task.scene.name!r}; "
            f"choose its scene with --datadir, and --scan {tuned.header.scene}"
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
    """Return the name of the run's folder, or of the folder that was given; MVSNeRF's own name."""
    here = Path(path)
    if here.suffix == ".tar" and not is_tuned_scene(path):
        return here.stem
    if here.suffix:
        here = here.parent
    while here.name == "ckpts" or here.name.startswith("epoch="):
        here = here.parent
    return here.name or path
