"""MVSNeRF fine-tuned on one scene: its encoding volume is a parameter (section 3.4)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from datasets.views import Views
from models.baselines.mvsnerf.encoding_volume import EncodedScene
from models.baselines.mvsnerf.model import NUM_VIEWS, MVSNeRF, crop_to_multiple
from models.ray_sampling import DepthPlanes
from models.scenes.scene_model import TunableScene
from utils.cameras import Cameras
from utils.errors import UserError


class MVSNeRFScene(TunableScene[MVSNeRF]):
    """Renders all cameras of one scene from the volume of the same three training views."""

    ENCODER_PREFIXES = ("model.feature.", "model.cost_reg_2.")
    source_views: Tensor

    def __init__(
        self,
        model: MVSNeRF,
        images: Float[Tensor, "view 3 height width"],
        cameras: Cameras,
        near_far: Float[Tensor, " 2"],
        source_views: Int[Tensor, " source"],
        volume: Float[Tensor, "channel plane row column"],
    ) -> None:
        """Render from ``source_views``, indices into the training views, and their volume."""
        super().__init__(model, images, cameras, near_far, len(source_views))
        self.volume = nn.Parameter(volume)
        self.register_buffer("source_views", source_views)

    def sources_of(self, cameras: Cameras, size: tuple[int, int]) -> Int[Tensor, "target source"]:
        """Return the same three sources for every camera."""
        return self.source_views.expand(len(cameras.c2w), -1)

    def gather(self, sources: Int[Tensor, "target source"]) -> EncodedScene:
        """Return the scene repeated for each target; the indices in ``sources`` are ignored."""
        count, chosen, config = len(sources), self.source_views, self.model.config
        images, cameras = crop_to_multiple(self.images[chosen]), self.cameras[chosen]
        shared = (images, cameras.intrinsics, cameras.c2w, self.volume, self.near_far)
        images, intrinsics, c2w, volume, near_far = (
            part.expand(count, *part.shape) for part in shared
        )
        planes = DepthPlanes(near_far, config.encoding_planes, config.ray_lindisp)
        cameras = Cameras(intrinsics, c2w)
        return EncodedScene(images, cameras, volume, planes, config.encoding_pad)


@torch.no_grad()
def encode_scene(model: MVSNeRF, views: Views, near_far: Float[Tensor, " 2"]) -> MVSNeRFScene:
    """Encode the training views ``(view,)`` nearest to the mean of the camera centres."""
    if len(views.images) < NUM_VIEWS:
        raise UserError(
            f"MVSNeRF needs {NUM_VIEWS} training views, found {len(views.images)}: choose fewer "
            "--targets."
        )
    centers = views.cameras.centers
    distances = (centers - centers.mean(0)).norm(dim=-1)
    sources = distances.argsort(stable=True)[:NUM_VIEWS]
    scene = model.encode(views[sources][None], near_far[None])
    return MVSNeRFScene(model, views.images, views.cameras, near_far, sources, scene.volume[0])
