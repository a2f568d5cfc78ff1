"""VGGT-Omega's heads: cameras in one pass, and depth without convolutions at full size."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.vggt.attention import Block
from models.vggt.config import OmegaConfig
from models.vggt.heads import POSE_DIM, DenseHead, Fusion, LargerMaps, Layers, add_positions

LEAST_FIELD_OF_VIEW = 0.01
"""Radians."""
FUSED_SCALE = 4
"""Pixels of the image along each side of a pixel of the fused map."""


class OmegaCameraHead(nn.Module):
    """Reads the cameras of a scene from the camera and register tokens of all its views."""

    def __init__(self, config: OmegaConfig) -> None:
        super().__init__()
        dim = config.token_dim
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.ModuleList(
            Block(dim, config.camera_heads, key_mask=True) for _ in range(config.trunk_depth)
        )
        self.trunk_norm = nn.LayerNorm(dim)
        self.camera_branch = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, POSE_DIM)
        )

    def forward(
        self, special: Float[Tensor, "batch view token channel"]
    ) -> tuple[Float[Tensor, "batch view 9"]]:
        """Return the pose encoding (see ``pose_encoding``), which is not refined."""
        tokens = self.token_norm(special).flatten(1, 2)
        for block in self.trunk:
            tokens = block(tokens)
        cameras = tokens.reshape(special.shape)[:, :, 0]
        pose: Tensor = self.camera_branch(self.trunk_norm(cameras)).float()
        fields_of_view = functional.relu(pose[..., 7:]) + LEAST_FIELD_OF_VIEW
        return (torch.cat([pose[..., :7], fields_of_view], -1),)


class OmegaDenseHead(DenseHead):
    """Depth and the logit of its confidence: each pixel of the fused map holds a square of them."""

    def __init__(self, config: OmegaConfig) -> None:
        super().__init__(config)
        self.scratch = Fusion(config, rectified_skip=False)
        self.side = config.patch_size // FUSED_SCALE
        self.proj, self.proj_conf = (nn.Conv2d(config.features, self.side**2, 1) for _ in range(2))

    def decode(self, layers: Layers, size: tuple[int, int]) -> LargerMaps:
        """Turn four maps into depth and confidence."""
        fused = add_positions(self.scratch.fuse(layers, scale=1), size)
        squares = [
            functional.pixel_shuffle(p(fused), self.side) for p in (self.proj, self.proj_conf)
        ]
        return torch.cat(squares, 1)
