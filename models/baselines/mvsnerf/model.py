"""MVSNeRF (Chen et al., ICCV 2021): three images -> encoding volume -> MLP -> volume rendering."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.views import Views
from models.baselines.config import MVSNERF_VIEWS as NUM_VIEWS
from models.baselines.config import BaselineConfig
from models.baselines.mvsnerf.encoding_volume import STEP, EncodedScene, build_cost_volume
from models.baselines.mvsnerf.networks import FEATURES, FeatureNet, RadianceMLP, VolumeNet
from models.baselines.ray_casting import RayCaster, sample_depths
from models.ray_sampling import DepthPlanes
from models.volume_rendering import Composite, alphas, composite_weights, transmittance
from utils.cameras import Cameras, Rays, full_precision
from utils.errors import UserError
from utils.memory import memory_stage

SIDE_MULTIPLE = 8 * STEP
"""Source images are cropped on the right and at the bottom to multiples of so many pixels."""
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class MVSNeRF(RayCaster[EncodedScene]):
    """A radiance field from three images through a plane-sweep cost volume.

    Modules are named as in the official code, so that its weights load.
    """

    def __init__(self, config: BaselineConfig) -> None:
        super().__init__(config)
        self.feature = FeatureNet()
        self.cost_reg_2 = VolumeNet(FEATURES + 3 * NUM_VIEWS)
        self.nerf = RadianceMLP(NUM_VIEWS)

    @property
    def fingerprint(self) -> str:
        """Identify everything that affects renderings apart from ``state_dict``."""
        return f"mvsnerf {self.config}"

    def encode(self, sources: Views, near_far: Float[Tensor, "batch 2"]) -> EncodedScene:
        """Build the encoding volume of source views ``(batch, view)`` in front of the first."""
        views, smallest = sources.images.shape[1], min(sources.size)
        if views != NUM_VIEWS:
            raise UserError(
                f"MVSNeRF renders from {NUM_VIEWS} source views, found {views}: give --n_views "
                f"{NUM_VIEWS}, and a scene with at least {NUM_VIEWS + 1} views."
            )
        if smallest < SIDE_MULTIPLE:
            raise UserError(
                f"MVSNeRF reads images of at least {SIDE_MULTIPLE} pixels a side, found "
                f"{smallest}: give a larger --image_size."
            )
        images, config = crop_to_multiple(sources.images), self.config
        planes = DepthPlanes(near_far, config.encoding_planes, config.ray_lindisp)
        steps = torch.linspace(0, 1, planes.count, device=images.device)
        depths = planes.depths(steps.expand(len(images), -1))
        with memory_stage("encoding the source views", images.device, image_size=sources.size):
            volumes = [
                self._encode_scene(images[index], sources.cameras[index], depths[index])
                for index in range(len(images))
            ]
        return EncodedScene(
            images, sources.cameras, torch.cat(volumes).float(), planes, config.encoding_pad
        )

    def _encode_scene(
        self,
        images: Float[Tensor, "view 3 height width"],
        cameras: Cameras,
        depths: Float[Tensor, " plane"],
    ) -> Float[Tensor, "1 channel plane row column"]:
        """Encode one scene: norms take their statistics over it alone."""
        statistics = (_IMAGENET_MEAN, _IMAGENET_STD)
        mean, std = (images.new_tensor(values)[:, None, None] for values in statistics)
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


def crop_to_multiple(
    images: Float[Tensor, "*batch 3 height width"],
) -> Float[Tensor, "*batch 3 rows columns"]:
    """Crop images to multiples of ``SIDE_MULTIPLE``, which the 3D U-Net needs."""
    height, width = (side - side % SIDE_MULTIPLE for side in images.shape[-2:])
    return images[..., :height, :width]
