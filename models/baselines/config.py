"""Settings of the baselines; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from utils.settings import Channels, Planes, Settings, Within

BASELINES = ("mvsnerf", "point_regression")
"""Names of the baseline models."""
MVSNERF_VIEWS = 3
"""Exact number of source views of MVSNeRF."""
ModelName = Literal["vggt_nerf", "mvsnerf", "point_regression"]


@dataclass(frozen=True)
class BaselineConfig(Settings):
    """Settings of the baselines."""

    ray_samples: Planes = 128
    """samples per ray of a baseline"""
    ray_lindisp: bool = False
    """space a baseline's samples and planes evenly in inverse depth (for unbounded scenes)"""
    ray_alpha: Literal["per_sample", "per_length"] = "per_sample"
    """MVSNeRF's opacity of a sample: per_sample is 1 - exp(-density), independent of the sample
    spacing, as in the official code; per_length is NeRF's 1 - exp(-density * spacing)"""
    encoding_planes: Annotated[int, Within(8, 4096, multiple=8)] = 128
    """depth planes of MVSNeRF's encoding volume in front of the first source"""
    encoding_pad: Annotated[int, Within(0, 1024, multiple=4)] = 24
    """padding of MVSNeRF's encoding volume around that source, in cells of 4x4 pixels"""
    point_width: Channels = 128
    """channels of the hidden layers of the point regression"""
    point_supervision: Literal["points", "rays"] = "points"
    """supervision of the point regression: points, by density and colour of single points; rays,
    by the colours of rendered pixels"""
    points_per_ray: Annotated[int, Within(1, 4096)] = 8
    """points per training step of the point regression for each pixel of batch_size"""
