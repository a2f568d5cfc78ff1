"""Measure how much empty space in front of true surfaces a baseline predicts as solid.

For example: python -m benchmarks.empty_space --ckpts runs_new/points/ckpts/last.ckpt
runs_new/rays/ckpts/last.ckpt --dataset_name procedural --num_worlds 4. The samples of the target
rays up to 5 % of the depth range before the true surface are evaluated. "solid" is the fraction of
samples with an alpha above 0.5; "blocked" is the fraction of rays whose transmittance is below 0.5
at the surface.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import sys
from dataclasses import dataclass, field
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
from utils.cameras import Rays, pixel_grid, pixel_rays
from utils.config import command
from utils.devices import choose_devices
from utils.errors import UserError
from utils.files import check_output_file
from utils.settings import Count

_MARGIN = 0.05
"""Fraction of the depth range in front of a surface that is excluded."""
_COLUMNS = (("solid", "solid %", 100.0, 2), ("blocked", "blocked %", 100.0, 1))


@dataclass(frozen=True)
class EmptySpaceConfig(RenderingModel):
    """All settings of the benchmark."""

    essential_flags: ClassVar = {
        "the models": ("ckpts", "device"),
        "the data": ("dataset_name", "datadir", "image_size", "num_worlds"),
        "the results": ("stride", "out"),
    }

    data: DataChoice = field(default_factory=DataChoice)
    held_out: HeldOutScenes = field(default_factory=HeldOutScenes)
    ckpts: tuple[str, ...] = ()
    """checkpoints of baselines"""
    stride: Count = 4
    """step between evaluated rows and columns of pixels"""
    out: str = "results/empty_space.json"
    """JSON file for the results"""

    def __post_init__(self) -> None:
        """Check that there is a model."""
        super().__post_init__()
        if not self.ckpts:
            raise ValueError("ckpts=(): give one or more checkpoints of baselines")


def solid_fractions(
    weights: Float[Tensor, "ray sample"],
    t: Float[Tensor, "ray sample"],
    surface: Float[Tensor, " ray"],
    margin: float,
) -> dict[str, float | None]:
    """Return the fractions of samples that are solid and of rays that are blocked.

    ``weights`` are rendering weights, ``surface`` true z-depths, 0 where unknown.
    """
    total = torch.cat([torch.zeros_like(weights[:, :1]), weights.cumsum(-1)[:, :-1]], -1)
    transmittance = 1 - total
    alphas = torch.where(transmittance > 1e-4, weights / transmittance.clamp_min(1e-4), 1)
    empty = (t < surface[:, None] - margin) & (surface > 0)[:, None]
    evaluated = empty.any(-1)
    if not evaluated.any():
        return {"solid": None, "blocked": None}
    at_surface = 1 - torch.where(empty, weights, 0).sum(-1)
    return {
        "solid": (alphas[empty] > 0.5).double().mean().item(),
        "blocked": (at_surface[evaluated] < 0.5).double().mean().item(),
    }


@torch.no_grad()
def run_benchmark(config: EmptySpaceConfig) -> str:
    """Evaluate every model on every scene, write the means, and return them as a table."""
    out = check_output_file(config.out, "--out")
    device = choose_devices(config.device)[0]
    models = {}
    for path in config.ckpts:
        model = read_model_file(path).with_overrides(config.vggt_path).build_model(device)
        if not isinstance(model, MVSNeRF | PointRegression):
            raise UserError(f"{path}: VGGT-NeRF samples rays near the surface only; give baselines")
        models[path] = model
    rows: dict[str, list[dict[str, float | None]]] = {path: [] for path in models}
    for task in read_tasks(config.data, config.held_out, device):
        for index in range(len(task.targets)):
            batch = collate_samples([task_sample(task, index)]).to(device)
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
                chunks = zip(
                    rays.origins.split(chunk, 1), rays.directions.split(chunk, 1), strict=True
                )
                weights = [
                    model.render_rays(scene, Rays(*parts), near_far).weights[0] for parts in chunks
                ]
                rows[path].append(solid_fractions(torch.cat(weights), t, depths, margin))
    means = {path: mean_figures(values, ("solid", "blocked")) for path, values in rows.items()}
    write_json(means, out)
    return "\n".join([*format_table(means, _COLUMNS), f"the results are in {out}"])


main = command(EmptySpaceConfig, run_benchmark, __doc__)

if __name__ == "__main__":
    sys.exit(main())
