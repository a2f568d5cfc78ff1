"""What no source view sees: a guess from its surroundings, which the decoder corrects.

That is, what lies outside the images of all sources; what another surface hides counts as seen. The
field has no information there. Without the guess the decoder paints the average colour of its
training data, whatever the scene looks like.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor

from models.bundles import Bundles, Window
from models.projection import SceneFeatures
from models.ray_sampling import DepthPlanes

MAP_CHANNELS = 6
"""Channels of the decoder's input beside colours and features: opacity, visibility, depth, and the
guessed colour."""
_COARSER_SHARE = 0.1
"""Share of a fully seen pixel that the coarser level counts for in ``pull_push``."""
_BARELY = 1e-4
"""Opacity below which a bundle shows the background."""


@dataclass(frozen=True)
class DecoderInput:
    """Maps for the decoder, and the colours that its output is added to."""

    maps: Float[Tensor, "batch channel row column"]
    colors: Float[Tensor, "batch bundle values"]
    """Colours of the pixels of each bundle, concatenated."""


def decoder_input(
    scene: SceneFeatures, bundles: Bundles, window: Window, planes: DepthPlanes
) -> DecoderInput:
    """Fill the composited colours where no source sees, and stack all that the decoder reads."""
    composite = bundles.composite
    views = scene.images.shape[1]
    # Share of the opacity that a source sees. What several see counts several times: with many
    # sources, rays that they see in part count as seen. Where nothing is opaque, the background is.
    counts = (bundles.visibility * views + _BARELY) / (composite.opacity + _BARELY)
    seen = counts.clamp(0, 1)[..., None]
    guess = guess_colors(scene, composite.rgb, seen, window)
    per_pixel = guess.repeat(1, 1, composite.rgb.shape[-1] // guess.shape[-1])
    single = [composite.opacity, bundles.visibility, planes.coordinates(composite.depth)]
    parts = [composite.rgb, bundles.features, torch.stack(single, -1), guess]
    filled = seen * composite.rgb + (1 - seen) * per_pixel
    return DecoderInput(window.to_map(torch.cat(parts, -1)), filled)


@torch.no_grad()
def guess_colors(
    scene: SceneFeatures,
    colors: Float[Tensor, "batch bundle channel"],
    seen: Float[Tensor, "batch bundle 1"],
    window: Window,
) -> Float[Tensor, "batch bundle 3"]:
    """Return each bundle's colour as its surroundings suggest it: ``pull_push`` of seen colours.

    Far from all seen colours, it is the average colour of the sources. The surroundings are those
    within the window: a small window may guess differently than a whole image.
    """
    mean = colors.unflatten(-1, (-1, 3)).mean(-2)
    filled = pull_push(window.to_map(mean), window.to_map(seen), scene.average_color())
    return filled.flatten(2).transpose(1, 2)


def pull_push(
    values: Float[Tensor, "batch channel row column"],
    weights: Float[Tensor, "batch 1 row column"],
    default: Float[Tensor, "batch channel"],
) -> Float[Tensor, "batch channel row column"]:
    """Interpolate weighted values over a whole map, as in the Lumigraph (Gortler et al. 1996).

    Weighted values are averaged over cells of twice the size, until one is left, then filled from
    there: a value is the mean of its own level and of the coarser one, by their weights. Unlike
    there, cells with few values keep little weight. ``weights`` are in [0, 1].
    """
    levels = [torch.cat([values * weights, weights], 1)]
    while max(levels[-1].shape[-2:]) > 1:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True))
    filled = default[:, :, None, None]
    for level in reversed(levels):
        coarser = F.interpolate(filled, level.shape[-2:], mode="bilinear", align_corners=False)
        sums, weight = level[:, :-1], level[:, -1:]
        filled = (sums + _COARSER_SHARE * coarser) / (weight + _COARSER_SHARE)
    return filled
