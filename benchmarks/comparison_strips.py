"""Pictures that compare renderings with the truth, of one model or of several side by side.

For example: python -m benchmarks.comparison_strips --dataset_name llff --datadir
data/nerf_llff_data/fern --ckpt ckpts/vggt-mini-nerf runs_fine_tuning/fern/NAME/ckpts/latest.tar
--names general fine-tuned --targets 12 --out results/fern.jpg. One checkpoint makes a strip of each
view: sources, truth, prediction, error, depth. Several make a column each, of the same views; with
a fine-tuned scene among them these are its test views. Data that are not named are those that the
fine-tuned scene was read from.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from datasets.config import DataChoice, HeldOutScenes
from datasets.protocols import SceneTask
from evaluation.config import DEFAULT_CKPT, RenderingModel
from evaluation.pictures import comparison_frames, comparison_sheet
from evaluation.rendering import Renderer, TestViews, ViewResult, evaluate_scene
from evaluation.run import read_tasks
from models.checkpoint import (
    FinetunedScene,
    header_of,
    load_finetuned,
    read_checkpoint,
    read_scene_file,
)
from models.rendering.scene import is_tuned_scene
from training.config import FineTuningConfig
from utils.config import command, settings_from_plain
from utils.devices import choose_devices
from utils.errors import UserError
from utils.files import check_output_file
from utils.images import save_small_image
from utils.settings import Within
from utils.video import write_video

_MOST_BYTES = 3 * 2**20
"""A README with larger pictures opens slowly."""


@dataclass(frozen=True)
class StripConfig(RenderingModel):
    """All settings: what is compared, and how it is shown."""

    data: DataChoice = field(default_factory=DataChoice)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    ckpt: tuple[str, ...] = (DEFAULT_CKPT,)
    """general checkpoints (of a folder the newest one in it) and fine-tuned scenes (latest.tar)"""
    names: tuple[str, ...] = ()
    """labels of the checkpoints in the picture; none: the names of their runs"""
    scene: str = ""
    """which scene of the data; none: the first"""
    height: Annotated[int, Within(16)] = 160
    """rows of each small picture"""
    out: str = "results/strips.jpg"
    """picture (.jpg or .png) of at most 3 MiB, or a video (.mp4) that shows each view a second"""

    def __post_init__(self) -> None:
        """Check that names and checkpoints match, and the picture's format."""
        super().__post_init__()
        if self.names and len(self.names) != len(self.ckpt):
            raise ValueError(f"names={self.names}: there are {len(self.ckpt)} checkpoints")
        if not self.out.lower().endswith((".jpg", ".jpeg", ".png", ".mp4")):
            raise ValueError(f"out={self.out}: must end in .jpg, .png or .mp4")


def run_strips(config: StripConfig) -> str:
    """Render, draw, write, and say what was made."""
    data = config.data
    check_output_file(config.out, "--out")
    device = choose_devices(config.device)[0]
    tuned = {path: load_finetuned(path, device) for path in config.ckpt if is_tuned_scene(path)}
    if tuned:
        data = _data_of(next(iter(tuned)), data)
    task = _find_task(read_tasks(data, config.held_out, device), config.scene)
    results = {}
    for path, name in zip(config.ckpt, config.names or map(_run_name, config.ckpt), strict=True):
        if path in tuned:
            rendered = _render_tuned(name, tuned[path], task, config.chunk)
        else:
            model = read_checkpoint(path).with_overrides(config.vggt_path).build_model(device)
            rendered = evaluate_scene(task, [Renderer(model, device, config.chunk, config.bf16)])
        # Two runs may have one name.
        results[name if name not in results else f"{name} ({len(results) + 1})"] = rendered
    drawn = task.scene, results, config.height
    if config.out.lower().endswith(".mp4"):
        frames = comparison_frames(*drawn)
        write_video(config.out, frames, fps=1.0)
        size = frames[0].shape
    else:
        sheet = comparison_sheet(*drawn)
        save_small_image(config.out, sheet, _MOST_BYTES)
        size = sheet.shape
    views = ", ".join(map(str, task.targets))
    return f"{config.out}: {task.scene.name}, views {views}, {size[2]}x{size[1]}"


def _data_of(path: str, chosen: DataChoice) -> DataChoice:
    """Complete what was chosen by the data and views of a fine-tuned scene."""
    header = header_of(read_scene_file(path), path)
    settings = settings_from_plain(FineTuningConfig, header.settings, f"{path}: settings")
    targets = chosen.targets or header.test_ids
    if chosen == replace(DataChoice(), targets=chosen.targets):
        chosen = settings.data
    return replace(chosen, targets=targets, sources=chosen.sources or header.train_ids)


def _find_task(tasks: Iterable[SceneTask], name: str) -> SceneTask:
    seen = []
    for task in tasks:
        if task.scene.name == (name or task.scene.name):
            return task
        seen.append(task.scene.name)
    raise UserError(f"--scene {name}: there is no such scene; there are {', '.join(seen[:8])}")


def _render_tuned(
    name: str, tuned: FinetunedScene, task: SceneTask, chunk: int
) -> list[ViewResult]:
    if tuned.header.scene != task.scene.name:
        raise UserError(
            f"{name}: was fine-tuned on {tuned.header.scene!r}, not on {task.scene.name!r}; "
            "choose its scene with --datadir and --scene"
        )
    if seen := [view for view in task.targets if view in tuned.header.train_ids]:
        raise UserError(
            f"{name}: was fine-tuned on view {seen[0]}; its test views are --targets "
            f"{' '.join(map(str, tuned.header.test_ids))}"
        )
    device = tuned.scene.images.device
    views = task.scene.load_views(task.targets).to(device)
    tests = TestViews(views, task.targets, task.region, chunk, device.type == "cuda")
    return tests.results(tuned.scene, tuned.header.train_ids)


def _run_name(path: str) -> str:
    """Return the name of the run's folder, or of the folder that was given."""
    here = Path(path)
    if here.suffix:
        here = here.parent
    while here.name == "ckpts" or here.name.startswith("epoch="):
        here = here.parent
    return here.name or path


main = command(StripConfig, run_strips, __doc__)

if __name__ == "__main__":
    sys.exit(main())
