"""Bundles: square groups of pixels that share the samples of one ray, as in GDB-NeRF (CVPR 2025).

Features are composited once per bundle, colours for each of its pixels. The decoder turns them into
an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from models.config import RenderConfig
from models.kernels.bundles import render_samples, supported
from models.novel_view import RenderedImages
from models.projection import (
    SceneFeatures,
    project_to_sources,
    read_maps,
    sample_bundles,
    view_statistics,
)
from models.radiance_field import RadianceField
from models.ray_sampling import DepthPlanes, RayBins, bin_positions, importance_bins
from models.volume_rendering import Composite, alphas, composite_weights, transmittance
from utils.cameras import Cameras, Rays, pixel_grid, pixel_rays


@dataclass(frozen=True)
class Window:
    """A rectangle of each target image, divided into bundles of ``side`` by ``side`` pixels."""

    corners: Int[Tensor, "batch 2"]
    """Column and row of the first pixel."""
    shape: tuple[int, int]
    """Rows and columns of bundles."""
    side: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[0] * self.side, self.shape[1] * self.side

    def centers(self) -> Float[Tensor, "batch bundle 2"]:
        """Return the pixel position of each bundle's centre, row by row."""
        cells = pixel_grid(*self.shape, self.corners.device) * self.side
        return self.corners[:, None] + cells

    def pixels(self) -> Float[Tensor, "batch bundle pixel 2"]:
        """Return the centres of each bundle's pixels, row by row."""
        inner = pixel_grid(self.side, self.side, self.corners.device) - self.side / 2
        return self.centers()[:, :, None] + inner

    def to_map(
        self, values: Float[Tensor, "batch bundle channel"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Arrange values per bundle as a map."""
        return rearrange(values, "b (h w) c -> b c h w", h=self.shape[0])

    def to_image(
        self, values: Float[Tensor, "batch bundle values"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Arrange values per bundle, which are pixel-major, as an image."""
        channel_major = rearrange(values, "b n (p c) -> b n (c p)", p=self.side**2)
        return F.pixel_shuffle(self.to_map(channel_major), self.side)

    def to_bundles(
        self, images: Shaped[Tensor, "batch channel height width"]
    ) -> Shaped[Tensor, "batch bundle values"]:
        """Return the pixel-major values of each bundle: the inverse of ``to_image``."""
        side = self.side
        return rearrange(images, "b c (h y) (w x) -> b (h w) (y x c)", y=side, x=side)

    def cut(
        self, images: Shaped[Tensor, "batch channel full_height full_width"]
    ) -> Shaped[Tensor, "batch channel height width"]:
        """Crop the window from each image."""
        columns, rows = self.corners.unbind(-1)
        down = torch.arange(self.size[0], device=rows.device) + rows[:, None]
        across = torch.arange(self.size[1], device=rows.device) + columns[:, None]
        batch = torch.arange(len(images), device=rows.device)[:, None, None]
        cropped = images.movedim(1, -1)[batch, down[:, :, None], across[:, None]]
        return cropped.movedim(-1, 1)


def whole_window(size: tuple[int, int], side: int, batch: int, device: torch.device) -> Window:
    """Return the window that covers images of (height, width); the last bundles may exceed them."""
    corners = torch.zeros(batch, 2, dtype=torch.long, device=device)
    return Window(corners, (-(-size[0] // side), -(-size[1] // side)), side)


@dataclass(frozen=True)
class BundleRays:
    """Rays through the centres of bundles and through their pixels."""

    centers: Rays
    pixels: Rays
    """Bundle by bundle."""

    @classmethod
    def of_window(cls, cameras: Cameras, window: Window) -> BundleRays:
        """Cast the rays of a window of each camera's image."""
        pixels = window.pixels().flatten(1, 2)
        return cls(pixel_rays(cameras, window.centers()), pixel_rays(cameras, pixels))

    def part(self, bundles: slice) -> BundleRays:
        """Return a slice of the bundles."""
        count = self.pixels.origins.shape[1] // self.centers.origins.shape[1]
        pixels = slice(bundles.start * count, bundles.stop * count)
        return BundleRays(self.centers.part(bundles), self.pixels.part(pixels))


@dataclass(frozen=True)
class Bundles:
    """Rendered bundles."""

    composite: Composite
    """Colours are those of the bundle's pixels, concatenated; depth is that of its centre."""
    features: Float[Tensor, "batch bundle channel"]
    visibility: Float[Tensor, "batch bundle"]
    """Share of the source views that see the bundle's surface."""
    t: Float[Tensor, "batch bundle sample"]
    """z-depths of the samples."""


@dataclass(frozen=True)
class WindowRendering:
    """A rendered window, with the intermediate results that training supervises."""

    rgb: Float[Tensor, "batch 3 height width"]
    bundles: Bundles
    levels: tuple[RayBins, ...]
    """Bins of each level of the cost volume, coarse to fine."""
    rays: Rays
    """Rays through the centres of the bundles."""


def render_bundles(
    field: RadianceField,
    settings: RenderConfig,
    scene: SceneFeatures,
    planes: DepthPlanes,
    rays: BundleRays,
    bins: RayBins,
    generator: torch.Generator | None = None,
) -> Bundles:
    """Render bundles from samples drawn by the weights of ``bins``.

    The field returns the optical depth of a sample's whole bin, as in ENeRF (Lin et al. 2022). A
    pure function, so that ``torch.compile`` can trace it.
    """
    edges, t = importance_bins(
        *(bins.t_edges, bins.weights, settings.N_samples, settings.sampling_floor, generator),
        spread=settings.sampling_spread,
    )
    context = torch.cat([bins.read_features(t), bin_positions(edges, t, planes)], -1)
    if supported(field, settings, t, context):
        colors, features, maps, weights = render_samples(
            *(field, settings, scene, planes, rays.centers, rays.pixels, t, context)
        )
        depth, opacity, visibility = maps.unbind(-1)
        return Bundles(Composite(colors, depth, opacity, weights), features, visibility, t)
    samples = sample_bundles(scene, rays.centers, rays.pixels, t, planes, settings.pad)
    output = field(samples, context, planes.coordinates(t))
    weights = alphas(output.densities) * transmittance(output.densities)
    far = planes.near_far[:, 1:]
    visible_share = samples.valid.float().mean(1)
    return Bundles(
        composite=composite_weights(weights, output.colors, t, far, settings.background),
        features=(weights[..., None] * output.features).sum(-2),
        visibility=(weights * visible_share).sum(-1),
        t=t,
    )


def join_bundles(parts: Sequence[Bundles]) -> Bundles:
    """Concatenate rendered bundles of the same images."""
    if len(parts) == 1:
        return parts[0]

    def joined(items: Sequence[Bundles | Composite], name: str) -> Tensor:
        return torch.cat([getattr(item, name) for item in items], 1)

    composites = [part.composite for part in parts]
    composite = Composite(*(joined(composites, name) for name in vars(composites[0])))
    rest = (joined(parts, name) for name in ("features", "visibility", "t"))
    return Bundles(composite, *rest)


def whole_images(
    rendering: WindowRendering, window: Window, size: tuple[int, int]
) -> RenderedImages:
    """Crop the rendering of a ``whole_window`` to images of (height, width) ``size``."""
    composite, (height, width) = rendering.bundles.composite, size

    def to_pixels(values: Float[Tensor, "batch bundle"]) -> Float[Tensor, "batch height width"]:
        repeated = values[..., None].expand(-1, -1, window.side**2)
        return window.to_image(repeated)[:, 0, :height, :width]

    return RenderedImages(
        # The decoder's correction is unbounded.
        rgb=rendering.rgb[..., :height, :width].clamp(0, 1),
        depth=to_pixels(composite.depth),
        opacity=to_pixels(composite.opacity),
    )


def composite_bins(
    scene: SceneFeatures,
    rays: Rays,
    t: Float[Tensor, "batch ray sample"],
    weights: Float[Tensor, "batch ray sample"],
    far: Float[Tensor, "batch 1"],
    background: float = 0.0,
) -> Composite:
    """Composite the mean source colour at z-depths ``t`` of rays: supervision of the cost volume.

    Colours are read at full resolution, so that sharp images reward accurate depth.
    """
    projected = project_to_sources(scene, rays, t, pad=0.0)
    colors = view_statistics(read_maps(scene.images, projected), projected.valid).mean
    # Points that no view sees get the scene's average colour.
    average = scene.average_color()[:, None, None]
    colors = torch.where(projected.valid.any(1)[..., None], colors, average)
    return composite_weights(weights, colors, t, far, background)
