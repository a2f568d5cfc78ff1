"""What a step trains on: random changes of samples, and random pixels of their targets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from datasets.views import Sample, Views
from models.projection import SceneFeatures
from models.single_rays import Rendering
from models.vggt_nerf import VGGTNeRF
from models.volume_rendering import Composite
from training.config import RayBatchConfig
from utils.cameras import Cameras

GAMMA_SPREAD, GAIN_SPREAD, BALANCE_SPREAD = 0.15, 0.1, 0.05
"""Standard deviations of the logarithms of: the exponent of all intensities, the factor of all
colours, the further factor of each colour."""


@dataclass(frozen=True)
class TargetRays:
    """Pixels of every target, and what their rays should have seen."""

    pixels: Float[Tensor, "batch target ray 2"]
    rgb: Float[Tensor, "batch target ray 3"]
    depth: Float[Tensor, "batch target ray"]
    """z-depth; 0 where unknown."""
    valid: Bool[Tensor, "batch target ray"]
    num_patches: int = 0
    """Patches of every target; their rays come first, patch by patch and row by row."""
    patch_size: int = 0

    def patches(
        self, values: Shaped[Tensor, "batch target ray channel"]
    ) -> Shaped[Tensor, "patch channel side side"]:
        """Return the patches of what each ray has, for example a colour, as images."""
        count, side = self.num_patches, self.patch_size
        first = values[:, :, : count * side**2]
        return rearrange(first, "b t (n h w) c -> (b t n) c h w", n=count, h=side, w=side)

    def whole_patches(self) -> Bool[Tensor, " patch"]:
        """Return which patches consist of valid rays alone."""
        return self.patches(self.valid[..., None]).flatten(1).all(1)


def draw_target_rays(
    targets: Views, rays_per_target: int, config: RayBatchConfig, generator: torch.Generator
) -> TargetRays:
    """Draw patches and single pixels uniformly from every target ``(batch, target)``."""
    height, width = targets.size
    side, device = config.patch_size, targets.images.device
    # No patch fits in a small image.
    fits = side <= min(targets.size)
    count = int(rays_per_target * config.patch_share) // side**2 if fits else 0
    shape = targets.images.shape[:2]
    corners = [
        torch.randint(last, (*shape, count), generator=generator, device=device)
        for last in (max(height - side + 1, 1), max(width - side + 1, 1))
    ]
    inner = torch.arange(side, device=device)
    rows = (corners[0][..., None, None] + inner[:, None]).expand(*shape, count, side, side)
    columns = (corners[1][..., None, None] + inner).expand(*shape, count, side, side)
    single = (*shape, rays_per_target - count * side**2)
    pick = torch.randint(height * width, single, generator=generator, device=device)
    pick = torch.cat([(rows * width + columns).flatten(2), pick], -1)
    centers = torch.stack([pick % width, pick // width], -1).to(targets.images.dtype) + 0.5
    colors = rearrange(targets.images, "b t c h w -> b t (h w) c")
    return TargetRays(
        pixels=centers,
        rgb=torch.take_along_dim(colors, pick[..., None], 2),
        depth=targets.depths.flatten(2).gather(2, pick),
        valid=targets.masks.flatten(2).gather(2, pick),
        num_patches=count,
        patch_size=side,
    )


def render_targets(
    model: VGGTNeRF,
    scene: SceneFeatures,
    targets: Views,
    near_far: Float[Tensor, "batch 2"],
    drawn: TargetRays,
    generator: torch.Generator | None = None,
) -> Rendering:
    """Render the drawn pixels, with a volume of its own for every target of a scene.

    The fields of the rendering, with its coarse pass, have axes ``(batch, target, ray, ...)``.
    """
    parts = []
    for place in range(targets.images.shape[1]):
        volume = model.build_cost_volume(scene, targets.cameras[:, place], near_far, targets.size)
        pixels = drawn.pixels[:, place]
        parts.append(model.render(scene, volume, pixels, generator, with_coarse=True))
    return Rendering(
        fine=_join([part.fine for part in parts]),
        t_edges=torch.stack([part.t_edges for part in parts], 1),
        plane_weights=torch.stack([part.plane_weights for part in parts], 1),
        coarse=_join([part.coarse for part in parts if part.coarse is not None]),
    )


def _join(parts: list[Composite]) -> Composite:
    columns = zip(*(vars(part).values() for part in parts), strict=True)
    return Composite(*(torch.stack(column, 1) for column in columns))


def vary_exposure(sample: Sample, generator: torch.Generator) -> Sample:
    """Change exposure and white balance of each scene, alike in all its views."""
    device = sample.near_far.device
    noise = torch.randn(len(sample.near_far), 5, generator=generator, device=device)
    gamma = (GAMMA_SPREAD * noise[:, 0]).exp()[:, None, None, None, None]
    gain = (GAIN_SPREAD * noise[:, 1:2] + BALANCE_SPREAD * noise[:, 2:]).exp()
    gain = gain[:, None, :, None, None]

    def exposed(views: Views) -> Views:
        return replace(views, images=(views.images**gamma * gain).clamp(0, 1))

    return replace(sample, sources=exposed(sample.sources), targets=exposed(sample.targets))


def perturb_cameras(sample: Sample, noise: float, generator: torch.Generator) -> Sample:
    """Shift the principal points of the source cameras at random.

    By fractions of a pixel, this is what a small error of a camera's rotation amounts to.
    ``noise`` is the largest standard deviation in pixels; each scene draws its share of it.
    """
    if noise == 0:
        return sample
    cameras = sample.sources.cameras
    device = cameras.c2w.device
    share = torch.rand(len(sample.near_far), 1, 1, generator=generator, device=device)
    shift = torch.randn(*cameras.shape, 2, generator=generator, device=device)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., :2, 2] += noise * share * shift
    moved = replace(sample.sources, cameras=Cameras(intrinsics, cameras.c2w))
    return replace(sample, sources=moved)


def draw_view_mask(
    sources: Views, dropout: float, generator: torch.Generator
) -> Bool[Tensor, "batch view"] | None:
    """Leave out each source but the first with a probability; ``None`` stands for all sources."""
    shape = sources.images.shape[:2]
    if dropout == 0 or shape[1] == 1:
        return None
    device = sources.images.device
    view_mask = torch.rand(shape, generator=generator, device=device) >= dropout
    view_mask[:, 0] = True
    return view_mask
