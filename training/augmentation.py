"""Random changes of training samples."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from datasets.views import Sample, Views
from utils.cameras import Cameras

GAMMA_SPREAD, GAIN_SPREAD, BALANCE_SPREAD = 0.15, 0.1, 0.05
"""Standard deviations of the logarithms of: the exponent of all intensities, the factor of all
colours, the further factor of each colour."""


def vary_exposure(sample: Sample, generator: torch.Generator) -> Sample:
    """Change exposure and white balance of each scene, alike in all its views."""
    device = sample.near_far.device
    noise = torch.randn(len(sample.near_far), 5, generator=generator, device=device)
    gamma = (GAMMA_SPREAD * noise[:, 0]).exp()[:, None, None, None, None]
    gain = (GAIN_SPREAD * noise[:, 1:2] + BALANCE_SPREAD * noise[:, 2:]).exp()
    gain = gain[:, None, :, None, None]

    def exposed(views: Views) -> Views:
        return replace(views, images=(views.images**gamma * gain).clamp(0, 1))

    return replace(sample, sources=exposed(sample.sources), targets=exposed(sample.targets))


def perturb_cameras(sample: Sample, noise: float, generator: torch.Generator) -> Sample:
    """Shift the principal points of the source cameras at random.

    By fractions of a pixel, this is what a small error of a camera's rotation amounts to.
    ``noise`` is the largest standard deviation in pixels; each scene draws its share of it.
    """
    if noise == 0:
        return sample
    cameras = sample.sources.cameras
    device = cameras.c2w.device
    share = torch.rand(len(sample.near_far), 1, 1, generator=generator, device=device)
    shift = torch.randn(*cameras.shape, 2, generator=generator, device=device)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., :2, 2] += noise * share * shift
    moved = replace(sample.sources, cameras=Cameras(intrinsics, cameras.c2w))
    return replace(sample, sources=moved)


def draw_view_mask(
    sources: Views, dropout: float, generator: torch.Generator
) -> Bool[Tensor, "batch view"] | None:
    """Leave out each source but the first with a probability; ``None`` stands for all sources."""
    shape = sources.images.shape[:2]
    if dropout == 0 or shape[1] == 1:
        return None
    device = sources.images.device
    view_mask = torch.rand(shape, generator=generator, device=device) >= dropout
    view_mask[:, 0] = True
    return view_mask
