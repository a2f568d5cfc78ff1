"""Terms of losses, and their sum."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from kornia.losses import ssim_loss
from torch import Tensor

from training.config import LossConfig
from utils.cameras import full_precision

SSIM_WINDOW = 7


def weighted_total(terms: dict[str, Float[Tensor, ""]], config: LossConfig) -> Float[Tensor, ""]:
    """Sum loss terms by their weights; that of ``fine`` is 1."""
    weights = {"fine": 1.0, **{name: getattr(config, f"{name}_weight") for name in list(terms)[1:]}}
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def dissimilarity(
    ours: Float[Tensor, "n 3 height width"], theirs: Float[Tensor, "n 3 height width"]
) -> Float[Tensor, "n inner_height inner_width"]:
    """Return (1 - SSIM) / 2 around every pixel, where a window fits."""
    with full_precision(ours):
        values = ssim_loss(ours, theirs, SSIM_WINDOW, reduction="none", padding="valid")
    return values.mean(1)


def masked_mean(values: Float[Tensor, "*ray"], mask: Bool[Tensor, "*ray"]) -> Float[Tensor, ""]:
    """Return the mean over a mask; 0 if it is empty."""
    # `where` and not a product: a value outside the mask may be infinite.
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)
