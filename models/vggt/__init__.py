"""The geometry backbone: VGGT at any size."""

from models.vggt.config import VGGTConfig
from models.vggt.frozen import BackboneFeatures, FrozenVGGT
from models.vggt.initialization import random_vggt
from models.vggt.network import VGGT, VGGTPrediction

__all__ = [
    "VGGT",
    "BackboneFeatures",
    "FrozenVGGT",
    "VGGTConfig",
    "VGGTPrediction",
    "random_vggt",
]
