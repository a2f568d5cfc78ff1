"""Random augmentation of training samples."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.views import Sample, Views
from utils.cameras import Cameras

_GAMMA_SPREAD, _GAIN_SPREAD, _BALANCE_SPREAD = 0.15, 0.1, 0.05
"""Standard deviations of the logarithms of gamma, overall gain and the gain of each channel."""
_VIEW_GAIN_SPREAD, _VIEW_BALANCE_SPREAD = 0.1, 0.03
"""Largest standard deviations of the logarithms of a single view's gain, overall and by channel.
Gains that align three photographs of a scene, where they show the same, have logarithms of 0.01
to 0.2 (8 scenes)."""
_LUMINANCE = (0.299, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _WHITE_BALANCE = 0.25, 0.25, 0.4, 0.08
"""Largest relative changes by ``jitter_colours``; the last one applies to single channels."""
_GREY_SHARE = 0.05
"""Share of the views that ``jitter_colours`` makes grey."""


def vary_exposure(sample: Sample, generator: torch.Generator) -> Sample:
    """Change exposure and white balance of each scene and, less, of each of its views.

    How much the views of a scene differ is drawn, too: in most scenes hardly.
    """
    scenes, device = len(sample.near_far), sample.near_far.device
    noise = torch.randn(scenes, 5, generator=generator, device=device)
    gamma = (_GAMMA_SPREAD * noise[:, 0]).exp()[:, None, None, None, None]
    gain = _GAIN_SPREAD * noise[:, 1:2] + _BALANCE_SPREAD * noise[:, 2:]
    share = torch.rand(scenes, 1, 1, generator=generator, device=device).square()

    def exposed(views: Views) -> Views:
        noise = torch.randn(*views.images.shape[:2], 4, generator=generator, device=device)
        of_views = _VIEW_GAIN_SPREAD * noise[..., :1] + _VIEW_BALANCE_SPREAD * noise[..., 1:]
        gains = (gain[:, None] + share * of_views).exp()[..., None, None]
        return replace(views, images=(views.images**gamma * gains).clamp(0, 1))

    return replace(sample, sources=exposed(sample.sources), targets=exposed(sample.targets))


def perturb_cameras(sample: Sample, noise: float, generator: torch.Generator) -> Sample:
    """Shift the principal points of the source cameras, which simulates small rotation errors.

    ``noise`` is the largest standard deviation in pixels; each scene draws a share of it.
    """
    if noise == 0:
        return sample
    cameras = sample.sources.cameras
    device = cameras.c2w.device
    share = torch.rand(len(sample.near_far), 1, 1, generator=generator, device=device)
    shift = torch.randn(*cameras.shape, 2, generator=generator, device=device)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., :2, 2] += noise * share * shift
    sources = replace(sample.sources, cameras=Cameras(intrinsics, cameras.c2w))
    return replace(sample, sources=sources)


def draw_view_mask(
    sources: Views, dropout: float, generator: torch.Generator
) -> Bool[Tensor, "batch view"] | None:
    """Drop each source but the first with probability ``dropout``; ``None`` means no drop."""
    shape = sources.images.shape[:2]
    if dropout == 0 or shape[1] == 1:
        return None
    device = sources.images.device
    view_mask = torch.rand(shape, generator=generator, device=device) >= dropout
    view_mask[:, 0] = True
    return view_mask


def jitter_colours(
    images: Float[Tensor, "batch view 3 height width"], generator: torch.Generator
) -> Float[Tensor, "batch view 3 height width"]:
    """Change brightness, contrast, saturation and white balance of every view separately.

    Images are RGB in [0, 1].
    """
    leading = images.shape[:2]

    def draw(spread: float, channels: int = 1) -> Tensor:
        noise = torch.rand(*leading, channels, 1, 1, generator=generator, device=images.device)
        return 1 + spread * (2 * noise - 1)

    brightness, contrast, saturation = draw(_BRIGHTNESS), draw(_CONTRAST), draw(_SATURATION)
    white_balance = draw(_WHITE_BALANCE, channels=3)
    colourless = torch.rand(*leading, 1, 1, 1, generator=generator, device=images.device)
    saturation = torch.where(colourless < _GREY_SHARE, 0.0, saturation)
    images = images * brightness * white_balance
    weights = images.new_tensor(_LUMINANCE)[:, None, None]
    grey = (images * weights).sum(2, keepdim=True)
    images = grey + saturation * (images - grey)
    mean = grey.mean((-2, -1), keepdim=True)
    return (mean + contrast * (images - mean)).clamp(0, 1)
