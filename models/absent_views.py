"""Source views that a batch has room for, but that a scene does not have."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def fill_missing_views(
    images: Float[Tensor, "batch view 3 height width"], view_mask: Bool[Tensor, "batch view"]
) -> Float[Tensor, "batch view 3 height width"]:
    """Put a scene's first view of the mask in the place of each that is not.

    Nothing is ever read from there, but the backbone's attention goes over all views: so it sees
    nothing new, and nothing unlike a photo.
    """
    first = view_mask.to(torch.int8).argmax(1)
    cover = images[torch.arange(len(images), device=images.device), first]
    return torch.where(view_mask[:, :, None, None, None], images, cover[:, None])
