"""The backbone that the settings choose: a VGGT, random weights of its sizes, or none."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from models.config import BackboneConfig
from models.vggt.config import VGGTConfig
from models.vggt.frozen import BackboneFeatures, FrozenVGGT, network_size
from models.vggt.network import VGGT, Head, random_vggt
from models.vggt.weights import read_config
from utils.errors import UserError

logger = logging.getLogger(__name__)


class NullBackbone(nn.Module):
    """Null backbone for the ablation."""

    fingerprint = "none"
    token_channels = 0
    num_layers = 0

    def forward(
        self,
        images: Float[Tensor, "batch view 3 height width"],
        heads: Collection[Head] = (),
    ) -> BackboneFeatures:
        """Return neither tokens nor geometry."""
        return BackboneFeatures(tokens=(), network_size=(images.shape[-2], images.shape[-1]))


Backbone = FrozenVGGT | NullBackbone


def load_backbone(config: BackboneConfig) -> Backbone:
    """Load the backbone; for random weights, warn that they carry no geometry."""
    if config.backbone == "none":
        return NullBackbone()
    check_backbone_size(config.backbone_size, config.vggt_path)
    if config.random_backbone:
        logger.warning(
            "RANDOM BACKBONE: %s is used without its weights. Its features carry no geometry; "
            "results say nothing about VGGT. Set random_backbone = false once the weights are "
            "there.",
            config.vggt_path,
        )
        network = random_vggt(read_config(config.vggt_path), seed=0)
    else:
        network = VGGT.from_pretrained(config.vggt_path)
    if config.tuned_blocks > network.config.depth:
        raise UserError(
            f"tuned_blocks={config.tuned_blocks}: {config.vggt_path} has {network.config.depth}"
        )
    return FrozenVGGT(network, config.backbone_size, config.tuned_blocks, config.tuned_rank)


def check_backbone_size(size: int, *folders: str) -> None:
    """Refuse a size that is no multiple of the backbone's patch, without reading its weights.

    Args:
        size: Longer side, in pixels, of the backbone's input.
        folders: Where it may lie; if it lies in none of them, VGGT's patch is assumed.
    """
    there = [folder for folder in folders if (Path(folder) / "config.json").is_file()]
    patch = read_config(there[0]).patch_size if there else VGGTConfig.patch_size
    try:
        network_size(patch, patch, size, patch)
    except ValueError as error:
        raise UserError(str(error)) from error
