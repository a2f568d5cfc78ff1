"""Rendering of bundles: pixels that share a ray's samples, each with colours of its own.

As in GDB-NeRF (CVPR 2025): colour and feature of a bundle are composited along one ray; the
decoder turns them into the picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.config import RenderConfig
from models.fine_volume import bin_positions
from models.projection import SceneFeatures, sample_bundles
from models.radiance_field import RadianceField
from models.ray_sampling import DepthPlanes, RayBins, importance_bins
from models.volume_rendering import Composite, alphas, composite_weights, transmittance
from models.window import Window
from utils.cameras import Cameras, Rays, pixel_rays

MAP_CHANNELS = 3
"""Of the decoder's input, beside colours and features: opacity, visibility, depth."""


@dataclass(frozen=True)
class BundleRays:
    """The rays of some bundles."""

    centers: Rays
    pixels: Rays
    """Of every pixel, bundle by bundle."""

    @classmethod
    def of_window(cls, cameras: Cameras, window: Window) -> BundleRays:
        """Cast the rays of a window of each camera's image."""
        pixels = window.pixels().flatten(1, 2)
        return cls(pixel_rays(cameras, window.centers()), pixel_rays(cameras, pixels))

    def part(self, bundles: slice) -> BundleRays:
        """Return some of the bundles."""
        count = self.pixels.origins.shape[1] // self.centers.origins.shape[1]
        pixels = slice(bundles.start * count, bundles.stop * count)
        return BundleRays(self.centers.part(bundles), self.pixels.part(pixels))


@dataclass(frozen=True)
class Bundles:
    """Rendered bundles."""

    composite: Composite
    """The colours of a bundle's pixels, one after the other; depth and opacity of its middle."""
    features: Float[Tensor, "batch bundle channel"]
    visibility: Float[Tensor, "batch bundle"]
    """Share of the views that see what the bundle shows."""
    t: Float[Tensor, "batch bundle sample"]
    """z-depths of the samples."""


@dataclass(frozen=True)
class WindowRendering:
    """A rendered window, and what training teaches on the way to it."""

    rgb: Float[Tensor, "batch 3 height width"]
    bundles: Bundles
    levels: tuple[RayBins, ...]
    """What the levels of the cost volume said, the first one first."""
    rays: Rays
    """Of the middles of the bundles."""


def render_bundles(
    field: RadianceField,
    settings: RenderConfig,
    scene: SceneFeatures,
    planes: DepthPlanes,
    rays: BundleRays,
    bins: RayBins,
    generator: torch.Generator | None = None,
) -> Bundles:
    """Render bundles from samples where the bins have weight.

    A sample stands for its bin, however wide: its optical depth is what the field returns, as in
    ENeRF. A function of its arguments alone, for ``torch.compile``.
    """
    edges, t = importance_bins(
        *(bins.t_edges, bins.weights, settings.N_samples, settings.sampling_floor, generator),
        spread=settings.sampling_spread,
    )
    samples = sample_bundles(scene, rays.centers, rays.pixels, t, planes, settings.pad)
    place = bin_positions(edges, t, planes)
    context = torch.cat([bins.read_features(t), place], -1)
    found = field(samples, context, planes.coordinates(t))
    weights = alphas(found.densities) * transmittance(found.densities)
    far = planes.near_far[:, 1:]
    seen = samples.valid.float().mean(1)
    return Bundles(
        composite=composite_weights(weights, found.colors, t, far, settings.background),
        features=(weights[..., None] * found.features).sum(-2),
        visibility=(weights * seen).sum(-1),
        t=t,
    )


def decoder_maps(
    bundles: Bundles, window: Window, planes: DepthPlanes
) -> Float[Tensor, "batch channel row column"]:
    """Arrange what the decoder sees: colours, features, opacity, visibility, depth."""
    composite = bundles.composite
    single = [composite.opacity, bundles.visibility, planes.coordinates(composite.depth)]
    parts = [composite.rgb, bundles.features, torch.stack(single, -1)]
    return window.to_map(torch.cat(parts, -1))


def join_bundles(parts: Sequence[Bundles]) -> Bundles:
    """Put rendered bundles of the same images together."""
    first = parts[0]
    if len(parts) == 1:
        return first

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts], 1)

    columns = zip(*(vars(part.composite).values() for part in parts), strict=True)
    composite = Composite(*(torch.cat(column, 1) for column in columns))
    return Bundles(composite, joined("features"), joined("visibility"), joined("t"))
