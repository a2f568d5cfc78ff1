"""Which VGGT looks at the source views, if any."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from models.config import BackboneConfig
from models.vggt.frozen import BackboneFeatures, FrozenVGGT
from models.vggt.initialization import random_vggt
from models.vggt.loading import read_config
from models.vggt.network import VGGT, Head
from models.vggt.preprocess import PATCH, check_long_side
from utils.errors import UserError

logger = logging.getLogger(__name__)


class NullBackbone(nn.Module):
    """Stands where a backbone would and says nothing."""

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
    """Load the backbone, or draw random weights and say so.

    Raises:
        UserError: The folder, its config or its weights are missing or wrong, or its patches do
            not fill the chosen size.
    """
    if config.backbone == "none":
        return NullBackbone()
    check_backbone_size(config.backbone_size, config.vggt_path)
    if not config.random_backbone:
        return _frozen(VGGT.from_pretrained(config.vggt_path), config)
    logger.warning(
        "RANDOM BACKBONE: %s is used without its weights. Its features carry no geometry; results "
        "say nothing about VGGT. Set random_backbone = false once the weights are there.",
        config.vggt_path,
    )
    return _frozen(random_vggt(read_config(Path(config.vggt_path)), seed=0), config)


def check_backbone_size(size: int, *folders: str) -> None:
    """Refuse a size that the patches of a backbone do not fill; its weights are not read for that.

    Args:
        size: Longer side, in pixels, of what the backbone is to see.
        folders: Where it may lie; if it lies in none of them, it is taken to have VGGT's patch.

    Raises:
        UserError: It is no multiple of the patch, or the backbone's config is malformed.
    """
    there = [Path(folder) for folder in folders if (Path(folder) / "config.json").is_file()]
    patch = read_config(there[0]).patch_size if there else PATCH
    try:
        check_long_side("backbone_size", size, patch)
    except ValueError as error:
        raise UserError(str(error)) from error


def _frozen(network: VGGT, config: BackboneConfig) -> FrozenVGGT:
    if config.tuned_blocks > network.config.depth:
        raise UserError(
            f"tuned_blocks={config.tuned_blocks}: {config.vggt_path} has {network.config.depth}"
        )
    return FrozenVGGT(network, config.backbone_size, config.tuned_blocks, config.tuned_rank)
