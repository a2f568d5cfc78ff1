"""Time encoding, cost volume, rendering and video writing: python -m benchmarks.speed.

On a GPU: --device gpu --size 512 640 --precision bf16-mixed --compile true. The model is timed
eagerly, on a GPU also with CUDA graphs, and with --compile compiled. Without --datadir the scene is
a procedural world.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import torch

from apps.rendering.config import CameraPathChoice, FrameSize, SceneAndModelConfig
from apps.rendering.open_scene import compile_model, open_scene
from apps.rendering.paths import CameraPath, make_path
from evaluation.report import format_table, write_json
from models.scenes.renderable_scene import GeneralScene, is_tuned_scene
from models.vggt_nerf import VGGTNeRF
from utils.config import command
from utils.errors import UserError
from utils.files import check_output_file
from utils.settings import Alias, Count
from utils.video import write_video

ResultT = TypeVar("ResultT")

_WARM_UP = 2
"""Frames before the timed ones."""


@dataclass(frozen=True)
class SpeedConfig(SceneAndModelConfig):
    """All settings of the benchmark."""

    essential_flags: ClassVar = {
        "the scene": ("datadir", "dataset_name", "scan", "n_views"),
        "the model": ("ckpt", "device", "compile", "precision", "chunk", "N_samples"),
        "the frames": ("size", "frames", "out"),
    }

    size: FrameSize = (192, 256)
    """height and width of a frame"""
    frames: Annotated[Count, Alias(("repeats", "n_frames"))] = 3
    """number of timed frames, of which the medians are reported"""
    out: str = "results/speed.json"
    """JSON file for the results"""


@torch.no_grad()
def time_stages(scene: GeneralScene, path: CameraPath, chunk: int | None) -> dict[str, float]:
    """Return the median milliseconds of each stage.

    ``encode`` runs once per set of source views, the others once per frame. ``frame`` is the sum of
    ``cost volume`` and ``render``; ``frame to CPU`` includes the transfer to the CPU.
    """
    model, seconds = scene.model, defaultdict[str, list[float]](list)
    if not isinstance(model, VGGTNeRF):
        raise UserError("--ckpt: is a baseline, which has no such stages; use apps.compare")

    def now() -> float:
        if scene.device.type == "cuda":
            torch.cuda.synchronize(scene.device)
        return time.perf_counter()

    def timed(name: str, step: Callable[[], ResultT]) -> ResultT:
        start = now()
        result = step()
        seconds[name].append(now() - start)
        return result

    near_far = scene.near_far.to(scene.device)[None]
    (sources,) = scene.choose_sources(path.cameras[[0]], path.size)
    views, images = scene.source_views(sources), []
    for frame in range(-_WARM_UP, len(path.cameras.c2w)):
        camera = path.cameras[[max(frame, 0)]].to(scene.device)
        with torch.autocast(scene.device.type, torch.bfloat16, enabled=scene.bf16):
            features = timed("encode", lambda: model.encode(views, near_far))
            view = (features, camera, near_far, path.size)
            timed("cost volume", lambda view=view: model.graphs(model.build_cost_volume, *view))
            timed("frame", lambda view=view: model.render_images(*view, chunk))
        target = path.cameras[max(frame, 0)]
        view = timed("frame to CPU", lambda target=target: scene.render(target, path.size, sources))
        images += [view.rgb] if frame >= 0 else []
    times = {name: 1e3 * statistics.median(values[_WARM_UP:]) for name, values in seconds.items()}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        write_video(Path(folder) / "video.mp4", images, 24.0)
        writing = 1e3 * (time.perf_counter() - start) / len(images)
    return {**times, "render": times["frame"] - times["cost volume"], "write video": writing}


def run_benchmark(config: SpeedConfig) -> str:
    """Time all stages, write the results, and return them as a table."""
    out = check_output_file(config.out, "--out")
    if is_tuned_scene(config.model.ckpt):
        raise UserError(
            f"--ckpt {config.model.ckpt}: a fine-tuned scene has no encoding stage; give the "
            "general checkpoint that it was fine-tuned from"
        )
    height, width = config.size
    scene = open_scene(config.scene, replace(config.model, compile=False), (height, width))
    assert isinstance(scene, GeneralScene)
    choice = CameraPathChoice("orbit", n_frames=config.frames, size=(height, width))
    path = make_path(choice, scene)
    on_gpu, stages = scene.device.type == "cuda", {}
    modes = ["eager"] + ["CUDA graphs"] * on_gpu + ["compiled"] * config.model.compile
    for mode in modes:
        if mode == "compiled":
            compile_model(scene.model)
        if isinstance(scene.model, VGGTNeRF):
            scene.model.graphs.enabled = mode != "eager"
        stages[mode] = time_stages(scene, path, config.model.chunk)
    report = {
        "milliseconds": stages,
        "size": [height, width],
        "sources": scene.n_sources,
        "samples": scene.n_samples,
        "precision": config.model.precision,
        "device": torch.cuda.get_device_name(scene.device) if on_gpu else "cpu",
        "torch": torch.__version__,
    }
    write_json(report, out)
    rows = {name: {mode: stages[mode][name] for mode in stages} for name in stages["eager"]}
    lines = format_table(rows, [(mode, mode, 1.0, 2) for mode in stages])
    title = f"{width}x{height}, {scene.n_sources} sources, {scene.n_samples} samples, ms"
    return "\n".join([title, *lines, f"medians of {config.frames} frames are in {out}"])


main = command(SpeedConfig, run_benchmark, __doc__)

if __name__ == "__main__":
    sys.exit(main())
