"""Images to tokens: the patch embedding, and attention alternating within and between views.

The patch embedding is DINOv2 (Oquab et al., 2023) with registers (Darcet et al., "Vision
transformers need registers", 2024).
"""

from __future__ import annotations

from math import isqrt

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.vggt.attention import Block, grid_rotations
from models.vggt.config import VGGTConfig

NORM_EPS = 1e-6
# ImageNet's statistics, with which the patch embedding was trained.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


class DinoTransformer(nn.Module):
    """The patch embedding: tokens of each image by itself."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        patches = (config.img_size // config.patch_size) ** 2
        self.patch_size = config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + patches, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, config.num_register_tokens, dim))
        # Unused, but part of published checkpoints (masked pre-training).
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
        """Return the class, register and patch tokens of images with ImageNet's normalisation."""
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
        """Resample the stored embedding to a patch grid of (rows, columns); the class is first.

        Bicubic with antialiasing, which differs from without even for upsampling: the cubic's
        parameter is -0.5 instead of -0.75.
        """
        side = isqrt(self.pos_embed.shape[1] - 1)
        if grid == (side, side):
            return self.pos_embed
        stored = self.pos_embed[:, 1:].float().unflatten(1, (side, side)).permute(0, 3, 1, 2)
        resampled = functional.interpolate(stored, size=grid, mode="bicubic", antialias=True)
        patches = resampled.flatten(2).transpose(1, 2)
        return torch.cat([self.pos_embed[:, :1], patches], 1)


class ViewTokens(nn.Module):
    """Turns each view into camera, register and patch tokens: the input stage of aggregators."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: VGGTConfig, patch_embed: nn.Module) -> None:
        super().__init__()
        dim = config.embed_dim
        self.patch_size = config.patch_size
        self.patch_start = config.patch_start
        self.kept_layers = config.intermediate_layer_idx
        self.patch_embed = patch_embed
        # Entry 0 is for the first view, the frame of reference; entry 1 for all others.
        self.camera_token = nn.Parameter(torch.randn(1, 2, 1, dim) * 1e-6)
        self.register_token = nn.Parameter(
            torch.randn(1, 2, config.num_register_tokens, dim) * 1e-6
        )
        # Constants need values even when the network is built on the meta device.
        mean, std = torch.tensor([IMAGE_MEAN, IMAGE_STD], device="cpu").unbind(0)
        self.register_buffer("image_mean", mean[:, None, None], persistent=False)
        self.register_buffer("image_std", std[:, None, None], persistent=False)

    def grid(self, images: Float[Tensor, "*batch 3 height width"]) -> tuple[int, int]:
        """Return rows and columns of patches of images."""
        return images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size

    def embed(
        self, images: Float[Tensor, "batch view 3 height width"]
    ) -> Float[Tensor, "batch view token channel"]:
        """Return each view's special tokens, then its patch tokens."""
        batch, views = images.shape[:2]
        rows, columns = self.grid(images)
        normalised = (images - self.image_mean) / self.image_std
        patches = self.patch_embed(normalised.flatten(0, 1))[:, -rows * columns :]
        special = torch.cat([self.camera_token, self.register_token], 2)
        others = special[:, 1:].expand(-1, views - 1, -1, -1)
        special = torch.cat([special[:, :1], others], 1).expand(batch, -1, -1, -1)
        return torch.cat([special, patches.unflatten(0, (batch, views))], 2)


class Aggregator(ViewTokens):
    """Turns the views of a scene into tokens by frame and global attention."""

    patch_embed: DinoTransformer

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__(config, DinoTransformer(config))
        self.head_dim = config.embed_dim // config.num_heads
        self.frame_blocks, self.global_blocks = (
            nn.ModuleList(
                Block(config.embed_dim, config.num_heads, qk_norm=True) for _ in range(config.depth)
            )
            for _ in range(2)
        )

    def forward(
        self, images: Float[Tensor, "batch view 3 height width"]
    ) -> tuple[tuple[Float[Tensor, "batch view token channels"], ...], int]:
        """Return the layers that the heads read, and the index of the first patch token.

        The channels of a layer are those after the frame block, then those after the global block.
        A view's tokens are camera, registers, and patches row by row.
        """
        batch, views = images.shape[:2]
        rotations = grid_rotations(
            self.grid(images), self.patch_start, self.head_dim, images.device
        )
        scene_rotations = rotations.repeat(views)
        tokens = self.embed(images)
        kept = []
        for index, (frame_block, global_block) in enumerate(
            zip(self.frame_blocks, self.global_blocks, strict=True)
        ):
            in_frame = frame_block(tokens.flatten(0, 1), rotations)
            in_scene = global_block(in_frame.reshape(batch, -1, tokens.shape[-1]), scene_rotations)
            tokens = in_scene.reshape(tokens.shape)
            if index in self.kept_layers:
                kept.append(torch.cat([in_frame.reshape(tokens.shape), tokens], -1))
        return tuple(kept), self.patch_start
