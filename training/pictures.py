"""Pictures that compare a rendering with the truth."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.views import Sample
from models.vggt_nerf import RenderedImages
from utils.images import colorize


def comparison_strip(
    batch: Sample, rendered: RenderedImages, max_sources: int = 3
) -> Float[Tensor, "3 height width"]:
    """Lay out the first scene of a batch: sources | truth, prediction, error | depth, true depth.

    The error is the absolute difference, mean over colours, black 0 to bright 0.5. Depths share
    the scene's near and far; unknown depth is black.
    """
    near, far = batch.near_far[0].tolist()
    truth, prediction = batch.targets.images[0, 0].float(), rendered.rgb[0].float()
    known = batch.targets.depths[0, 0].float()
    error = colorize((prediction - truth).abs().mean(0), 0.0, 0.5, "inferno")
    panels = [*batch.sources.images[0, :max_sources].float(), truth, prediction, error]
    panels += [colorize(rendered.depth[0].float(), near, far)]
    if (known > 0).any():
        panels += [colorize(torch.where(known > 0, known, torch.nan), near, far)]
    return torch.cat(panels, -1).cpu()
