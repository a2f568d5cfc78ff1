"""Procedural scenes: posed images with exact geometry, made to order on any device."""

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.dtu_writer import DtuSettings, write_dtu
from datasets.procedural.generator import PreparedBatch, ProceduralBatch, ProceduralGenerator

__all__ = [
    "DtuSettings",
    "PreparedBatch",
    "ProceduralBatch",
    "ProceduralConfig",
    "ProceduralGenerator",
    "write_dtu",
]
