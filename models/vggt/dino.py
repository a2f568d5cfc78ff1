"""The patch embedding: a vision transformer with register tokens.

DINOv2 (Oquab et al., 2023) with registers (Darcet et al., "Vision transformers need registers",
2024), as VGGT uses it. The stored positional embedding covers a square grid and is resampled for
any other.
"""

from __future__ import annotations

from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.vggt.attention import Block
from models.vggt.config import VGGTConfig

NORM_EPS = 1e-6


class DinoTransformer(nn.Module):
    """Image to tokens, each image on its own."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        patches = (config.img_size // config.patch_size) ** 2
        self.patch_size = config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, dim))
        # Only masked pre-training uses it, but checkpoints carry it.
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        projection = nn.Conv2d(3, dim, config.patch_size, stride=config.patch_size)
        self.patch_embed = nn.ModuleDict({"proj": projection})
        self.blocks = nn.ModuleList(
            Block(dim, config.dino_heads, eps=NORM_EPS, layer_scale=1.0)
            for _ in range(config.dino_depth)
        )
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)

    def forward(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return the normalised class, register and patch tokens, in this order.

        Args:
            images: Normalised by ImageNet's mean and deviation, sides multiples of the patch.
        """
        height, width = images.shape[-2:]
        grid = (height // self.patch_size, width // self.patch_size)
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        classes = self.cls_token.expand(len(images), -1, -1)
        tokens = torch.cat([classes, patches], 1) + self.position_embedding(grid)
        registers = self.register_tokens.expand(len(images), -1, -1)
        tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], 1)
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def position_embedding(self, grid: tuple[int, int]) -> Float[Tensor, "1 token channel"]:
        """Resample the stored embedding to a patch grid of (rows, columns); the class comes first.

        Resampling is bicubic with antialiasing, which differs from the plain kind even when it
        enlarges: the cubic's parameter is then -0.5, not -0.75.
        """
        side = isqrt(self.pos_embed.shape[1] - 1)
        if grid == (side, side):
            return self.pos_embed
        stored = self.pos_embed[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        resampled = functional.interpolate(stored, size=grid, mode="bicubic", antialias=True)
        patches = resampled.flatten(2).transpose(1, 2)
        return torch.cat([self.pos_embed[:, :1], patches], 1)
