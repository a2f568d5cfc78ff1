"""Cameras that are a little off, as those of photographs are."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from datasets.views import Sample
from utils.cameras import Cameras


@dataclass(frozen=True)
class CameraNoiseConfig:
    """How far the cameras of sources may stray in training."""

    camera_noise: float = 0.0
    """most pixels, in one deviation, by which a source camera points elsewhere than it is said to;
    every scene draws its share of it. For worlds, whose cameras are exact"""

    def __post_init__(self) -> None:
        """Refuse negative noise."""
        if self.camera_noise < 0:
            raise ValueError(f"camera_noise={self.camera_noise} must not be negative")


def shake_cameras(sample: Sample, config: CameraNoiseConfig, generator: torch.Generator) -> Sample:
    """Return the sample with source cameras that point slightly elsewhere.

    Their images move, in effect, by fractions of a pixel: so small a turn of a camera is a shift
    of its principal point.

    Args:
        sample: The targets stay as they are.
        config: How far to go; nothing is drawn if nowhere.
        generator: On the device of the sample.
    """
    if config.camera_noise == 0:
        return sample
    cameras = sample.sources.cameras
    device = cameras.c2w.device
    share = torch.rand(len(sample.near_far), 1, 1, generator=generator, device=device)
    shift = torch.randn(*cameras.shape, 2, generator=generator, device=device)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., :2, 2] += config.camera_noise * share * shift
    moved = replace(sample.sources, cameras=Cameras(intrinsics, cameras.c2w))
    return replace(sample, sources=moved)
