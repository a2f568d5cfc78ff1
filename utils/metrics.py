"""Image and depth metrics, as the field's tables define them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def psnr(
    prediction: Float[Tensor, "*batch 3 height width"],
    truth: Float[Tensor, "*batch 3 height width"],
    mask: Bool[Tensor, "*batch height width"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Peak signal-to-noise ratio in dB, over the masked pixels, for values in [0, 1].

    An empty mask gives NaN: there is nothing to measure.
    """
    error = (prediction - truth).square().mean(-3)
    if mask is None:
        mask = torch.ones_like(error, dtype=torch.bool)
    mse = torch.where(mask, error, 0).sum((-2, -1)) / mask.sum((-2, -1))
    return -10 * torch.log10(mse)


def psnr_from_mse(mse: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Convert a mean squared error of values in [0, 1] to dB."""
    return -10 * torch.log10(mse)


def mean_depth_error(
    prediction: Float[Tensor, "*batch height width"],
    truth: Float[Tensor, "*batch height width"],
) -> Float[Tensor, "*batch"]:
    """Mean absolute z-depth error where the truth is known (> 0); NaN where it never is."""
    known = truth > 0
    error = torch.where(known, (prediction - truth).abs(), 0).sum((-2, -1))
    return error / known.sum((-2, -1))
