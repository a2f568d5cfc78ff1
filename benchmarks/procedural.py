"""Images per second of the procedural generator: python -m benchmarks.procedural.

On an accelerator: --device cuda --scenes 16 --views 4.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import argparse
import statistics
import time

import torch

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralGenerator


def measure(generator: ProceduralGenerator, scenes: int, views: int, size: tuple[int, int]) -> None:
    """Print planning and rendering time; the first batch warms up (and compiles)."""
    plan_seconds, render_seconds = [], []
    for batch in range(4):
        start = time.perf_counter()
        prepared = generator.prepare(range(batch * scenes, (batch + 1) * scenes), views, size, 0.5)
        planned = time.perf_counter()
        generator.render(prepared)
        if generator.device.type == "cuda":
            torch.cuda.synchronize()
        plan_seconds.append(planned - start)
        render_seconds.append(time.perf_counter() - planned)
    render = statistics.median(render_seconds[1:])
    print(
        f"{size[1]}x{size[0]}: {scenes * views / render:.2f} images/s rendered, "
        f"{1e3 * statistics.median(plan_seconds) / scenes:.1f} ms to plan a scene, "
        f"first batch {render_seconds[0]:.1f} s"
    )


def main() -> None:
    """Measure the sizes that training uses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scenes", type=int, default=4)
    parser.add_argument("--views", type=int, default=2)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--rays_per_chunk", type=int, default=ProceduralConfig.rays_per_chunk)
    arguments = parser.parse_args()
    config = ProceduralConfig(samples=arguments.samples, rays_per_chunk=arguments.rays_per_chunk)
    generator = ProceduralGenerator(config, arguments.device)
    for size in ((128, 160), (256, 320)):
        measure(generator, arguments.scenes, arguments.views, size)


if __name__ == "__main__":
    main()
