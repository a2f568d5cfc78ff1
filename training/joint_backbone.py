"""Training the backbone together with the radiance field: its weights, and losses of its own."""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Bool, Float
from torch import Tensor, nn

from datasets.views import Views
from models.encoder import fill_missing_views
from models.vggt.backbone import BackboneFeatures, FrozenVGGT
from models.vggt.network import ALL_HEADS, VGGT
from models.vggt_nerf import VGGTNeRF
from training.vggt.losses import geometry_losses, geometry_targets
from utils.cameras import full_precision


def learning_network(model: VGGTNeRF) -> VGGT:
    """Let the network of the model's backbone be trained, and return it."""
    assert isinstance(model.backbone, FrozenVGGT)
    return model.backbone.unfreeze()


def learned_parameters(network: VGGT | None) -> Iterator[tuple[str, nn.Parameter]]:
    """Name the parameters of a trained network as ``build_optimizer`` knows a backbone's."""
    if network is not None:
        yield from network.named_parameters(prefix="backbone")


def compare_geometry(
    model: VGGTNeRF, sources: Views, view_mask: Bool[Tensor, "batch view"] | None
) -> tuple[BackboneFeatures, Float[Tensor, ""]]:
    """Let the backbone see the sources ``(batch, view)``, whose depth is known.

    Returns its features, for encoding, and the loss of its cameras, depth and points.
    """
    seen = sources if view_mask is None else fill_missing_views(sources, view_mask)
    predicted = model.backbone(seen.images, heads=ALL_HEADS)
    assert predicted.prediction is not None
    with full_precision(seen.images):
        targets = geometry_targets(seen.resized(predicted.network_size))
        return predicted, geometry_losses(predicted.prediction, targets)["loss"]
