"""What the radiance field says at points of rays: nearly all the time of a rendering."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from models.projection import SceneFeatures, observe
from models.radiance_field import RadianceField
from models.target_volume import TargetVolume
from utils.rays import Rays


def field_samples(
    field: RadianceField,
    scene: SceneFeatures,
    target: TargetVolume,
    rays: Rays,
    pixels: Float[Tensor, "batch ray 2"],
    t: Float[Tensor, "batch ray sample"],
    pad: float,
) -> tuple[Float[Tensor, "batch ray sample"], Float[Tensor, "batch ray sample 3"]]:
    """Return densities (of no unit yet) and colours at z-depths ``t``.

    A function of its arguments alone without a choice in it, so that ``torch.compile`` turns it
    into one graph: eagerly, most of its time goes into writing and reading what lies between two
    operations.

    Args:
        field: Decides.
        scene: The encoded sources.
        target: What they say about the target's frustum.
        rays: Of the target.
        pixels: Where the rays cross its image.
        t: Depths along them.
        pad: As in ``observe``.
    """
    observations = observe(scene, rays, t, target.planes, pad)
    context = target.read_features(pixels, t)
    return field(observations, context, target.planes.coordinates(t))
