"""Errors of the depth prior of source views: python -m benchmarks.prior_depth.

On held-out procedural worlds: the backbone's depth in the scale of the given cameras, and the same
after refinement by a cost volume in front of every source. The weighted error weights each pixel by
its confidence.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from datasets.config import HeldOutScenes
from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralGenerator
from models.checkpoint import read_checkpoint
from models.depth_prior import DepthPrior
from models.vggt_nerf import VGGTNeRF
from utils.devices import choose_devices
from utils.errors import run_and_report

HEADINGS = ("AbsRel", "median", "<3 %", "confidence", "AbsRel, weighted")


def figures(
    prior: DepthPrior,
    depth: Float[Tensor, "batch view height width"],
    known: Bool[Tensor, "batch view height width"],
) -> list[float]:
    """Return relative errors of a prior, and its mean confidence."""
    predicted, confidence = (
        functional.interpolate(maps, depth.shape[-2:], mode="nearest-exact")[known]
        for maps in prior.depth_and_confidence().unbind(2)
    )
    error = (predicted - depth[known]).abs() / depth[known]
    weighted = (error * confidence).sum() / confidence.sum().clamp_min(1e-6)
    close = (error < 0.03).float().mean()
    values = error.mean(), error.median(), close, confidence.mean(), weighted
    return [value.item() for value in values]


@torch.no_grad()
def compare(
    model: VGGTNeRF, generator: ProceduralGenerator, arguments: argparse.Namespace
) -> Iterator[tuple[list[float], list[float]]]:
    """Yield the figures of every world: of the backbone's depth, and refined."""
    for world in range(arguments.worlds):
        size = (arguments.image_size[0], arguments.image_size[1])
        batch = generator.sample([world], arguments.n_views, size, arguments.difficulty)
        views, near_far = batch.views, batch.near_far
        known = views.masks & (views.depths > 0)
        before, after = (
            figures(model.encode(views, near_far, refine=refine).prior, views.depths, known)
            for refine in (False, True)
        )
        yield before, after


def measure(arguments: argparse.Namespace) -> str:
    """Print the table, and return a note on it."""
    (device,) = choose_devices(arguments.device)
    checkpoint = read_checkpoint(arguments.ckpt).with_overrides(arguments.vggt_path)
    model = checkpoint.build_model(device)
    config = ProceduralConfig(seed=HeldOutScenes().world_seed, samples=1)
    generator = ProceduralGenerator(config, device)
    rows = torch.tensor(list(compare(model, generator, arguments))).mean(0)
    print(f"{'':10}" + "".join(f"{heading:>18}" for heading in HEADINGS))
    for name, row in zip(("backbone", "refined"), rows.tolist(), strict=True):
        print(f"{name:10}" + "".join(f"{value:18.3f}" for value in row))
    return f"means of {arguments.worlds} worlds"


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status, as ``run_and_report`` documents it."""
    held_out = HeldOutScenes()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt", default="ckpts/vggt-mini-nerf")
    parser.add_argument("--vggt_path")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--worlds", type=int, default=24)
    parser.add_argument("--image_size", "--size", type=int, nargs=2, default=(192, 256))
    parser.add_argument("--n_views", type=int, default=3)
    parser.add_argument("--difficulty", type=float, default=held_out.world_difficulty)
    arguments = parser.parse_args(argv)
    return run_and_report(lambda: measure(arguments))


if __name__ == "__main__":
    sys.exit(main())
