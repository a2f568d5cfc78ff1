"""Settings of the baselines; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from utils.settings import Channels, Planes, Settings, Within

BASELINES = ("mvsnerf", "point_regression")
"""Names of the models beside VGGT-NeRF."""
MVSNERF_VIEWS = 3
"""Sources that MVSNeRF renders from, no more and no fewer."""
ModelName = Literal["vggt_nerf", "mvsnerf", "point_regression"]


@dataclass(frozen=True)
class BaselineConfig(Settings):
    """How the baselines sample space, and what they are."""

    ray_samples: Planes = 128
    """samples on each ray of a baseline, from near to far"""
    ray_lindisp: bool = False
    """spread a baseline's samples and planes evenly in inverse depth (for unbounded scenes)"""
    ray_alpha: Literal["per_sample", "per_length"] = "per_sample"
    """MVSNeRF's opacity of a sample: per_sample is 1 - exp(-density), however far the next sample
    is, as its authors have it; per_length is NeRF's 1 - exp(-density * spacing)"""
    encoding_planes: Annotated[int, Within(8, 4096, multiple=8)] = 128
    """planes of MVSNeRF's encoding volume, from near to far in front of the first source"""
    encoding_pad: Annotated[int, Within(0, 1024, multiple=4)] = 24
    """cells of MVSNeRF's encoding volume, each of 4x4 pixels, beyond every side of that source"""
    point_width: Channels = 128
    """channels of the hidden layers of the point regression"""
    point_supervision: Literal["points", "rays"] = "points"
    """what teaches the point regression: points, density and colour of single points; rays, the
    colours of rendered pixels, with the same network"""
    points_per_ray: Annotated[int, Within(1, 4096)] = 8
    """points that the point regression learns from in one step for each pixel of batch_size"""
