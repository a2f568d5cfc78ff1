"""Which VGGT looks at the source views."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from models.vggt.frozen import FrozenVGGT
from models.vggt.initialization import random_vggt
from models.vggt.loading import read_config
from models.vggt.network import VGGT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BackboneConfig:
    """The frozen backbone."""

    vggt_path: str = "ckpts/VGGT-1B"
    """folder with config.json and the weights of a VGGT"""
    backbone_size: int = 518
    """longer side, in pixels, of the images that the backbone sees"""
    random_backbone: bool = False
    """use the sizes in vggt_path with random weights: for trying things, it knows no geometry"""

    def __post_init__(self) -> None:
        """Refuse sizes that no patch grid fits."""
        if self.backbone_size < 28:
            raise ValueError(f"backbone_size={self.backbone_size} is too small, take at least 28")


def load_backbone(config: BackboneConfig) -> FrozenVGGT:
    """Load the backbone, or draw random weights and say so.

    Raises:
        UserError: The folder, its config or its weights are missing or wrong.
    """
    if not config.random_backbone:
        return FrozenVGGT(VGGT.from_pretrained(config.vggt_path), config.backbone_size)
    logger.warning(
        "RANDOM BACKBONE: %s is used without its weights. Its features carry no geometry; results "
        "say nothing about VGGT. Set random_backbone = false once the weights are there.",
        config.vggt_path,
    )
    network = random_vggt(read_config(Path(config.vggt_path)), seed=0)
    return FrozenVGGT(network, config.backbone_size)
