"""Measure how much of the empty space in front of true surfaces a baseline takes for solid.

For example: python -m benchmarks.empty_space --ckpts runs_new/points/ckpts/last.ckpt
runs_new/rays/ckpts/last.ckpt --dataset_name procedural --num_worlds 4. The samples of the rays
through the targets' pixels count; those nearer to the true surface than a twentieth of the range
do not. "solid" is the share of them with an opacity above one half, "blocked" the share of rays
whose light does not reach the surface: less than half of it is left there.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.config import DataChoice, HeldOutScenes
from datasets.views import collate_samples
from evaluation.config import RenderingModel
from evaluation.rendering import task_sample
from evaluation.report import format_table, mean_figures, write_json
from evaluation.run import read_tasks
from models.baselines.mvsnerf.model import MVSNeRF
from models.baselines.point_regression import PointRegression
from models.baselines.ray_casting import sample_depths
from models.checkpoints.general import read_model_file
from models.ray_sampling import DepthPlanes
from utils.cameras import pixel_grid, pixel_rays
from utils.config import command
from utils.devices import choose_devices
from utils.errors import UserError
from utils.files import check_output_file
from utils.settings import Count

_MARGIN = 0.05
"""Share of the range in front of a surface that does not count."""
_COLUMNS = (("solid", "solid %", 100.0, 2), ("blocked", "blocked %", 100.0, 1))


@dataclass(frozen=True)
class EmptySpaceConfig(RenderingModel):
    """All settings of the benchmark."""

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "the models": ("ckpts", "device"),
        "the data": ("dataset_name", "datadir", "image_size", "num_worlds"),
        "the results": ("stride", "out"),
    }

    data: DataChoice = field(default_factory=DataChoice)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    ckpts: tuple[str, ...] = ()
    """checkpoints of baselines"""
    stride: Count = 4
    """of rows and columns every so manyth is measured"""
    out: str = "results/empty_space.json"
    """JSON file for the figures"""

    def __post_init__(self) -> None:
        """Check that there is a model."""
        super().__post_init__()
        if not self.ckpts:
            raise ValueError("ckpts=(): give checkpoints of baselines")


def share_taken_for_solid(
    weights: Float[Tensor, "ray sample"],
    t: Float[Tensor, "ray sample"],
    surface: Float[Tensor, " ray"],
    margin: float,
) -> dict[str, float | None]:
    """Return which share of the samples, and of the rays, is solid before the true surface.

    ``weights`` are those of the rendering, ``surface`` z-depths, of which the known ones count.
    """
    light = 1 - torch.cat([torch.zeros_like(weights[:, :1]), weights.cumsum(-1)[:, :-1]], -1)
    alpha = torch.where(light > 1e-4, weights / light.clamp_min(1e-4), 1)
    before = (t < surface[:, None] - margin) & (surface > 0)[:, None]
    known = before.any(-1)
    if not known.any():
        return {"solid": None, "blocked": None}
    left = 1 - torch.where(before, weights, 0).sum(-1)
    return {
        "solid": (alpha[before] > 0.5).double().mean().item(),
        "blocked": (left[known] < 0.5).double().mean().item(),
    }


@torch.no_grad()
def run_benchmark(config: EmptySpaceConfig) -> str:
    """Measure every model on every scene, write the figures, and return the means as a table."""
    out = check_output_file(config.out, "--out")
    device = choose_devices(config.device)[0]
    models = {}
    for path in config.ckpts:
        model = read_model_file(path).with_overrides(config.vggt_path).build_model(device)
        if not isinstance(model, MVSNeRF | PointRegression):
            raise UserError(f"{path}: VGGT-NeRF has samples near the surface alone; give baselines")
        models[path] = model
    rows: dict[str, list[dict[str, float | None]]] = {path: [] for path in models}
    for task in read_tasks(config.data, config.held_out, device):
        for place in range(len(task.targets)):
            batch = collate_samples([task_sample(task, place)]).to(device)
            pixels = pixel_grid(*batch.targets.size, device).unflatten(0, batch.targets.size)
            pixels = pixels[:: config.stride, :: config.stride].flatten(0, 1)
            depths = batch.targets.depths[0, 0, :: config.stride, :: config.stride].flatten()
            rays, near_far = pixel_rays(batch.targets.cameras[:, 0], pixels), batch.near_far
            margin = _MARGIN * near_far.diff().item()
            for path, model in models.items():
                scene = model.encode(batch.sources, near_far)
                planes = DepthPlanes(near_far, model.num_samples, model.config.ray_lindisp)
                t = sample_depths(planes, len(pixels))[0]
                chunk = model.rays_at_once(device, 1, len(pixels), config.chunk)
                parts = [
                    model.render_rays(scene, type(rays)(o, d), near_far).weights[0]
                    for o, d in zip(
                        rays.origins.split(chunk, 1),
                        rays.directions.split(chunk, 1),
                        strict=True,
                    )
                ]
                rows[path].append(share_taken_for_solid(torch.cat(parts), t, depths, margin))
    means = {path: mean_figures(found, ("solid", "blocked")) for path, found in rows.items()}
    write_json(means, Path(out))
    return "\n".join([*format_table(means, _COLUMNS), f"all figures are in {out}"])


main = command(EmptySpaceConfig, run_benchmark, __doc__)

if __name__ == "__main__":
    sys.exit(main())
