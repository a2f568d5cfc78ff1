"""Statistics over source views that do not care how many there are or in which order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class ViewStatistics:
    """What the views that see a point have in common; zeros where none does."""

    mean: Float[Tensor, "batch ray sample channel"]
    variance: Float[Tensor, "batch ray sample channel"]
    count: Float[Tensor, "batch ray sample"]
    """Views that see the point."""

    def similarity(self, groups: int) -> Float[Tensor, "batch ray sample group"]:
        """Return the mean product of all pairs of different views, for groups of channels.

        It follows from the other statistics: the mean over all pairs is ``|mean|^2``, and pairs
        of a view with itself have ``|mean|^2 + variance``. Zero where fewer than two views see
        the point. Of unit vectors this is their cosine.
        """
        square = self.mean.square().unflatten(-1, (groups, -1)).sum(-1)
        variance = self.variance.unflatten(-1, (groups, -1)).sum(-1)
        others = (self.count - 1).clamp_min(1)[..., None].to(square.dtype)
        several = (self.count > 1)[..., None]
        return torch.where(several, square - variance / others, 0)


def view_statistics(
    values: Float[Tensor, "batch view ray sample channel"],
    valid: Bool[Tensor, "batch view ray sample"],
) -> ViewStatistics:
    """Average over the views that see each point."""
    count = valid.sum(1)
    share = (valid / count.clamp_min(1)[:, None]).to(values.dtype)[..., None]
    mean = (values * share).sum(1)
    variance = ((values - mean[:, None]).square() * share).sum(1)
    return ViewStatistics(mean, variance, count.to(torch.float32))


def working_precision(values: Tensor) -> Tensor:
    """Take the precision of autocast, if it is on, and lie as linear layers read it."""
    device = values.device.type
    if torch.is_autocast_enabled(device):
        return values.to(torch.get_autocast_dtype(device), memory_format=torch.contiguous_format)
    return values


def masked_softmax(
    logits: Float[Tensor, "batch view ray sample"], valid: Bool[Tensor, "batch view ray sample"]
) -> Float[Tensor, "batch view ray sample"]:
    """Return softmax over the views that see a point; zeros where none does."""
    filled = logits.masked_fill(~valid, -1e4)
    return torch.softmax(filled, 1) * valid.to(logits.dtype)
