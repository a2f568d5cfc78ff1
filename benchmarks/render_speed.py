"""How fast videos are rendered, and where the time goes.

For example: python -m benchmarks.render_speed --ckpt runs_new/NAME/ckpts/last.ckpt --datadir
data/dtu/scan65 --size 512 640 --out results/render_speed.json. Frames per second are measured
without the stopwatches; these wait for the device at every border, and thus show shares only.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import models.vggt_nerf
from apps.rendering.config import CameraPathChoice, RendererChoice, SceneChoice
from apps.rendering.finetuned import is_tuned_scene
from apps.rendering.frames import plan_frames
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import frame_size, make_path
from apps.rendering.scene import GeneralScene
from models.radiance_field import RadianceField
from models.vggt_nerf import VGGTNeRF
from utils.config import parse_config
from utils.console import run_and_report
from utils.errors import UserError
from utils.files import check_output_file
from utils.videos import write_video

_Stages = dict[str, tuple[tuple[Any, str], ...]]
_STAGES: _Stages = {
    "encode": ((VGGTNeRF, "encode"),),
    "sample": ((VGGTNeRF, "look"), (models.vggt_nerf, "importance_edges")),
    "field": ((models.vggt_nerf, "sample_source_views"), (RadianceField, "forward")),
    "composite": ((models.vggt_nerf, "composite"),),
}
"""Which functions belong to which stage."""
_COMPILED_STAGES: _Stages = {
    "encode": ((VGGTNeRF, "encode"),),
    "look": ((VGGTNeRF, "look"),),
    "render": ((VGGTNeRF, "render"),),
}
"""The same where graphs cannot be looked into."""
_WARM_UP = 3


@dataclass(frozen=True)
class SpeedConfig:
    """All settings of the benchmark."""

    scene: SceneChoice = field(default_factory=SceneChoice)
    model: RendererChoice = field(default_factory=RendererChoice)
    camera_path: CameraPathChoice = field(default_factory=CameraPathChoice)
    out: str = "results/render_speed.json"
    """File for the figures"""


@dataclass
class Stopwatch:
    """Adds up the seconds spent in stages."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def now(self) -> float:
        """Read the clock when the device is idle."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def around(self, stage: str, function: Callable) -> Callable:
        """Return a function that notes how long it takes."""

        def timed(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
            started = self.now()
            result = function(*arguments, **options)
            self.seconds[stage] += self.now() - started
            return result

        return timed

    @contextmanager
    def installed(self, stages: _Stages) -> Iterator[None]:
        """Time the stages of the model meanwhile."""
        with ExitStack() as stack:
            for stage, places in stages.items():
                for owner, name in places:
                    timed = self.around(stage, getattr(owner, name))
                    stack.enter_context(patch.object(owner, name, timed))
            yield


def run_benchmark(config: SpeedConfig) -> str:
    """Measure, write the figures, and return them as a table.

    Raises:
        UserError: Bad input.
    """
    check_output_file(Path(config.out), "--out")
    if is_tuned_scene(config.model.ckpt):
        raise UserError(
            f"--ckpt {config.model.ckpt}: a fine-tuned scene encodes nothing, this benchmark takes "
            "general checkpoints only; give the one that it was fine-tuned from"
        )
    scene = open_scene(config.scene, config.model, frame_size(config.camera_path))
    assert isinstance(scene, GeneralScene)
    path = make_path(config.camera_path, scene)
    places = plan_frames(scene, path, len(path.cameras.c2w)).sources[0][0].places
    watch = Stopwatch(scene.device)

    def render(frame: int) -> torch.Tensor:
        return scene.render(path.cameras[frame], path.size, places).rgb

    for _ in range(_WARM_UP):
        render(0)
    times, images = [], []
    for frame in range(len(path.cameras.c2w)):
        started = watch.now()
        images.append(render(frame))
        times.append(watch.now() - started)
    scene.forget_sources()
    with watch.installed(_COMPILED_STAGES if config.model.compile else _STAGES):
        render(0)
        # Encoding looks from the sources, too: that is no part of a frame.
        encoding = watch.seconds.pop("encode")
        watch.seconds.clear()
        for frame in range(len(images)):
            render(frame)
    watch.seconds["encode"] = encoding
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_video(Path(folder) / "video.mp4", images, 24.0)
        watch.seconds["encode video"] = time.perf_counter() - started
    figures = _figures(config, scene, path.size, times, watch)
    Path(config.out).write_text(json.dumps(figures, indent=1) + "\n")
    rows = [f"{stage:<24}{value:10.2f} ms" for stage, value in figures["milliseconds"].items()]
    return "\n".join([f"{figures['frames_per_second']:.2f} frames per second", *rows, config.out])


def _figures(
    config: SpeedConfig,
    scene: GeneralScene,
    size: tuple[int, int],
    times: list[float],
    watch: Stopwatch,
) -> dict[str, Any]:
    """Bring the measurements together: per frame, but the encoding of sources per source set."""
    per_frame = {
        stage: 1e3 * seconds / (1 if stage == "encode" else len(times))
        for stage, seconds in watch.seconds.items()
    }
    on_gpu = scene.device.type == "cuda"
    return {
        "frames_per_second": 1 / statistics.median(times),
        "milliseconds": {"frame, median": 1e3 * statistics.median(times), **per_frame},
        "size": size,
        "sources": scene.n_sources,
        "samples": scene.n_samples,
        "precision": config.model.precision,
        "device": torch.cuda.get_device_name(scene.device) if on_gpu else "cpu",
        "torch": torch.__version__,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    config = parse_config(SpeedConfig, argv, description=__doc__ or "")
    return run_and_report(lambda: run_benchmark(config))


if __name__ == "__main__":
    sys.exit(main())
