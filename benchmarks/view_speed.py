"""Seconds per view of a general model: python -m benchmarks.view_speed.

On a GPU: --device cuda --size 512 640 --chunk 327680 --bf16 --compile.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from datasets.procedural import ProceduralBatch, ProceduralConfig, ProceduralGenerator
from models.checkpoint import read_checkpoint
from models.vggt_nerf import VGGTNeRF
from utils.console import run_and_report
from utils.rays import pixel_grid

ResultT = TypeVar("ResultT")


class Clock:
    """Takes the time of each step when the device is done with it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, list[float]] = {}

    def __call__(self, name: str, step: Callable[[], ResultT]) -> ResultT:
        """Run a step and remember how long it took."""
        self._wait()
        started = time.perf_counter()
        result = step()
        self._wait()
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return result

    def table(self) -> list[str]:
        """Return the median of every step in milliseconds; the first time is for warming up."""
        return [
            f"{name:8} {1e3 * statistics.median(values[1:]):9.2f} ms"
            for name, values in self.seconds.items()
        ]

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def world(size: tuple[int, int], views: int, device: torch.device) -> ProceduralBatch:
    """Render a target and its sources."""
    generator = ProceduralGenerator(ProceduralConfig(samples=1), device)
    return generator.sample([0], views + 1, size, 0.5)


@torch.no_grad()
def time_steps(model: VGGTNeRF, batch: ProceduralBatch, chunk: int, repeats: int) -> list[str]:
    """Time what happens once per scene (encode), once per image (look) and for its rays."""
    views, near_far = batch.views, batch.near_far
    clock, size = Clock(near_far.device), views.size
    sources, camera = views.take(list(range(1, views.images.shape[1]))), views.cameras[:, 0]
    parts = pixel_grid(*size, near_far.device).split(chunk)
    for _ in range(repeats + 1):
        scene = clock("encode", lambda: model.encode(sources, near_far))
        target = clock(
            "look", lambda scene=scene: model.build_cost_volume(scene, camera, near_far, size)
        )
        clock(
            "render",
            lambda scene=scene, target=target: [
                model.render(scene, target, part[None]).fine.rgb for part in parts
            ],
        )
    return clock.table()


def measure(arguments: argparse.Namespace) -> str:
    """Print the times, and return how they were taken.

    Raises:
        UserError: The checkpoint or its backbone is missing, or cannot sample so.
    """
    device = torch.device(arguments.device)
    checkpoint = read_checkpoint(arguments.ckpt).with_overrides(
        arguments.vggt_path, N_samples=arguments.N_samples
    )
    model = checkpoint.build_model(device)
    if arguments.compile:
        model.compile_rendering()
    batch = world(tuple(arguments.size), arguments.n_views, device)
    with torch.autocast(device.type, torch.bfloat16, enabled=arguments.bf16):
        lines = time_steps(model, batch, arguments.chunk, arguments.repeats)
    print(f"{arguments.size[1]}x{arguments.size[0]}, {arguments.n_views} sources")
    print("\n".join(lines))
    return f"medians of {arguments.repeats} repeats"


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status, as ``run_and_report`` documents it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", default="ckpts/vggt-mini-nerf")
    parser.add_argument("--vggt_path")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=(192, 256))
    parser.add_argument("--n_views", type=int, default=3)
    parser.add_argument("--chunk", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true", help="look and render as graphs")
    parser.add_argument("--N_samples", type=int, help="samples on a ray, if not the checkpoint's")
    arguments = parser.parse_args(argv)
    return run_and_report(lambda: measure(arguments))


if __name__ == "__main__":
    sys.exit(main())
