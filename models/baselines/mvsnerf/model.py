"""MVSNeRF, from top to bottom: three images to an encoding volume, rays to colours."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.views import Views
from models.baselines.config import MVSNERF_VIEWS as NUM_VIEWS
from models.baselines.config import BaselineConfig
from models.baselines.mvsnerf.encoding_volume import STEP, EncodedScene, build_cost_volume
from models.baselines.mvsnerf.networks import FEATURES, FeatureNet, VolumeNet
from models.baselines.mvsnerf.radiance_field import RadianceMLP
from models.baselines.ray_casting import RayCaster, sample_depths
from models.ray_sampling import DepthPlanes
from models.volume_rendering import Composite, alphas, composite_weights, transmittance
from utils.cameras import Cameras, Rays, full_precision
from utils.errors import UserError
from utils.memory import memory_stage

SIDE_MULTIPLE = 8 * STEP
"""Pixels: what lies beyond a multiple is cut from the right and the lower side of the sources."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours."""


class MVSNeRF(RayCaster[EncodedScene]):
    """A radiance field from three images through a plane-sweep cost volume.

    Parts are named as in the public definition, so that its weights fit.
    """

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        self.feature = FeatureNet()
        self.cost_reg_2 = VolumeNet(FEATURES + 3 * NUM_VIEWS)
        self.nerf = RadianceMLP(NUM_VIEWS)

    @property
    def fingerprint(self) -> str:
        """Name all that renders, beside the weights."""
        return f"mvsnerf {self.config}"

    def encode(self, sources: Views, near_far: Float[Tensor, "batch 2"]) -> EncodedScene:
        """Build the encoding volume of source views ``(batch, view)`` in front of the first."""
        found, smallest = sources.images.shape[1], min(sources.size)
        if found != NUM_VIEWS:
            raise UserError(
                f"MVSNeRF renders from {NUM_VIEWS} source views, found {found}: give --n_views "
                f"{NUM_VIEWS}, and a scene with as many beside the target."
            )
        if smallest < SIDE_MULTIPLE:
            raise UserError(
                f"MVSNeRF reads images of at least {SIDE_MULTIPLE} pixels a side, found "
                f"{smallest}: give a larger --image_size."
            )
        images, config = cut_to_multiple(sources.images), self.config
        planes = DepthPlanes(near_far, config.encoding_planes, config.ray_lindisp)
        steps = torch.linspace(0, 1, planes.count, device=images.device)
        depths = planes.depths(steps.expand(len(images), -1))
        # The number of views is fixed.
        with memory_stage("encoding the source views", images.device, image_size=sources.size):
            scenes = _scenes(images, sources.cameras, depths)
            volumes = [self._encode_one(*scene) for scene in scenes]
        return EncodedScene(
            images, sources.cameras, torch.cat(volumes).float(), planes, config.encoding_pad
        )

    def _encode_one(
        self,
        images: Float[Tensor, "view 3 height width"],
        cameras: Cameras,
        depths: Float[Tensor, " plane"],
    ) -> Float[Tensor, "1 channel plane row column"]:
        """Encode one scene alone: norms take their statistics over it."""
        mean, std = (images.new_tensor(values)[:, None, None] for values in (_MEAN, _STD))
        images = (images - mean) / std
        features = self.feature(images).float()
        with full_precision(images):
            pad = self.config.encoding_pad
            volume = build_cost_volume(images, features, cameras, depths, pad)
        return self.cost_reg_2(volume)

    def render_rays(
        self,
        scene: EncodedScene,
        rays: Rays,
        near_far: Float[Tensor, "batch 2"],
        generator: torch.Generator | None = None,
    ) -> Composite:
        """Render rays ``(batch, ray)``; a generator moves the samples at random."""
        samples = DepthPlanes(near_far, self.config.ray_samples, self.config.ray_lindisp)
        t = sample_depths(samples, rays.origins.shape[1], generator)
        positions, features = scene.read(rays, t)
        directions = scene.directions(rays.viewdirs)[:, :, None].expand_as(positions)
        densities, colors = (each.float() for each in self.nerf(positions, features, directions))
        if self.config.ray_alpha == "per_length":
            spacing = t.diff(dim=-1)
            spacing = torch.cat([spacing, spacing[..., -1:]], -1)
            densities = densities * spacing * rays.directions.norm(dim=-1, keepdim=True)
        weights = alphas(densities) * transmittance(densities)
        return composite_weights(weights, colors, t, near_far[:, 1:])


def cut_to_multiple(
    images: Float[Tensor, "*batch 3 height width"],
) -> Float[Tensor, "*batch 3 rows columns"]:
    """Cut sides to multiples of ``SIDE_MULTIPLE``, which the volume's network needs."""
    height, width = (side - side % SIDE_MULTIPLE for side in images.shape[-2:])
    return images[..., :height, :width]


def _scenes(
    images: Float[Tensor, "batch view 3 height width"],
    cameras: Cameras,
    depths: Float[Tensor, "batch plane"],
) -> list[tuple[Tensor, Cameras, Tensor]]:
    return [(images[place], cameras[place], depths[place]) for place in range(len(images))]
