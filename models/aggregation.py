"""Statistics over source views that do not care how many there are or in which order."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean_variance(
    values: Float[Tensor, "batch view ray sample channel"],
    valid: Bool[Tensor, "batch view ray sample"],
) -> tuple[Float[Tensor, "batch ray sample channel"], Float[Tensor, "batch ray sample channel"]]:
    """Return mean and variance over the views that see a point; zeros where none does."""
    weights = valid[..., None].to(values.dtype)
    count = weights.sum(1).clamp_min(1)
    mean = (values * weights).sum(1) / count
    variance = ((values - mean[:, None]).square() * weights).sum(1) / count
    return mean, variance


def groupwise_similarity(
    features: Float[Tensor, "batch view ray sample channel"],
    valid: Bool[Tensor, "batch view ray sample"],
    groups: int,
) -> Float[Tensor, "batch ray sample group"]:
    """Return the mean cosine similarity over all pairs of valid views, for groups of channels.

    The sum over pairs follows from the norm of the sum, ``|sum f|^2 - sum |f|^2``, so the cost is
    linear in the number of views. Zero where fewer than two views see the point.
    """
    grouped = rearrange(features, "b v r s (g c) -> b v r s g c", g=groups)
    unit = torch.nn.functional.normalize(grouped, dim=-1, eps=1e-4)
    unit = unit * valid[..., None, None].to(unit.dtype)
    pairs = unit.sum(1).square().sum(-1) - unit.square().sum(-1).sum(1)
    count = valid.sum(1).to(unit.dtype)
    return pairs / (count * (count - 1)).clamp_min(1)[..., None]


def masked_softmax(
    logits: Float[Tensor, "batch view ray sample"], valid: Bool[Tensor, "batch view ray sample"]
) -> Float[Tensor, "batch view ray sample"]:
    """Return softmax over the views that see a point; zeros where none does."""
    filled = logits.masked_fill(~valid, -1e4)
    return torch.softmax(filled, 1) * valid.to(logits.dtype)
