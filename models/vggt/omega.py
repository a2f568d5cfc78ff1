"""VGGT-Omega: its patch embedding, aggregator and heads, where they differ from VGGT's.

Wang et al., "VGGT-Omega", CVPR 2026. The patch embedding is DINOv3 (Simeoni et al., 2025). Tokens
of different views attend to each other without positions and, in some blocks, only camera and
register tokens do. Cameras take a single pass, depth no convolutions at full size.
"""

from __future__ import annotations

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.vggt.aggregator import ViewTokens
from models.vggt.attention import ROTARY_BASE, Block, Rotations
from models.vggt.config import OmegaConfig
from models.vggt.heads import POSE_DIM, DenseHead, Fusion, LargerMaps, Layers, add_positions

MIN_FIELD_OF_VIEW = 0.01
"""In radians."""
FUSED_SCALE = 4
"""Image pixels per pixel of the fused map, along each side."""


class RotaryPositions(nn.Module):
    """Rotations by the position in the image, independent of its number of patches."""

    periods: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        quarter = head_dim // 4
        # Constants need values even when the network is built on the meta device.
        periods = ROTARY_BASE ** (torch.arange(quarter, device="cpu") / quarter)
        self.register_buffer("periods", periods)

    def forward(self, grid: tuple[int, int], num_special: int) -> Rotations:
        """Return the rotations of one view's tokens; special tokens come first, with angle 0.

        The centres of the patches lie in [-1, 1] along the longer side of the image, and start at
        -1 along the other.
        """
        rows, columns = (
            2 * (torch.arange(count, device=self.periods.device) + 0.5) / max(grid) - 1
            for count in grid
        )
        angles = 2 * pi * torch.cartesian_prod(rows, columns)[..., None] / self.periods
        angles = torch.cat([angles.new_zeros(num_special, *angles.shape[1:]), angles])
        return Rotations(angles.cos(), angles.sin(), distant_pairs=True)


class DinoV3Transformer(nn.Module):
    """The patch embedding: tokens of each image by itself."""

    def __init__(self, config: OmegaConfig) -> None:
        super().__init__()
        dim, heads = config.embed_dim, config.dino_heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.storage_tokens = nn.Parameter(torch.zeros(1, config.num_storage_tokens, dim))
        # Unused, but part of published checkpoints (masked pre-training).
        self.mask_token = nn.Parameter(torch.zeros(1, dim), requires_grad=False)
        projection = nn.Conv2d(3, dim, config.patch_size, stride=config.patch_size)
        self.patch_embed = nn.ModuleDict({"proj": projection})
        self.rope_embed = RotaryPositions(dim // heads)
        self.blocks = nn.ModuleList(
            Block(dim, heads, key_mask=True, layer_scale=1.0) for _ in range(config.dino_depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(
        self, images: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image token channel"]:
        """Return the class, storage and patch tokens of images with ImageNet's normalisation."""
        patches = self.patch_embed["proj"](images)
        special = torch.cat([self.cls_token, self.storage_tokens], 1)
        rotations = self.rope_embed((patches.shape[-2], patches.shape[-1]), special.shape[1])
        tokens = torch.cat(
            [special.expand(len(images), -1, -1), patches.flatten(2).transpose(1, 2)], 1
        )
        for block in self.blocks:
            tokens = block(tokens, rotations)
        return self.norm(tokens)


class OmegaAggregator(ViewTokens):
    """Turns the views of a scene into tokens by attention within and between views."""

    patch_embed: DinoV3Transformer

    def __init__(self, config: OmegaConfig) -> None:
        super().__init__(config, DinoV3Transformer(config))
        dim, heads = config.embed_dim, config.num_heads
        self.register_blocks = config.register_blocks
        self.rope_embed = RotaryPositions(dim // heads)
        self.frame_blocks, self.inter_frame_blocks = (
            nn.ModuleList(
                Block(dim, heads, qk_norm=True, key_mask=True) for _ in range(config.depth)
            )
            for _ in range(2)
        )

    @property
    def global_blocks(self) -> nn.ModuleList:
        """The blocks between views, under VGGT's name."""
        return self.inter_frame_blocks

    def forward(
        self, images: Float[Tensor, "batch view 3 height width"]
    ) -> tuple[tuple[Float[Tensor, "batch view token channels"], ...], int]:
        """Return the layers that the heads read, and the index of the first patch token.

        The channels of a layer are those after the frame block, then those after the block between
        views. A view's tokens are camera, registers, and patches row by row.
        """
        tokens = self.embed(images)
        rotations = self.rope_embed(self.grid(images), self.patch_start)
        kept = []
        for index, (frame_block, inter_block) in enumerate(
            zip(self.frame_blocks, self.inter_frame_blocks, strict=True)
        ):
            in_frame = frame_block(tokens.flatten(0, 1), rotations).reshape(tokens.shape)
            count = self.patch_start if index in self.register_blocks else tokens.shape[2]
            attending, others = in_frame[:, :, :count], in_frame[:, :, count:]
            attended = inter_block(attending.flatten(1, 2)).reshape(attending.shape)
            tokens = torch.cat([attended, others], 2)
            if index in self.kept_layers:
                kept.append(torch.cat([in_frame, tokens], -1))
        return tuple(kept), self.patch_start


class OmegaCameraHead(nn.Module):
    """Predicts all cameras of a scene from the camera and register tokens of its views."""

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
        """Return the pose encoding (see ``pose_encoding``) of the only iteration."""
        tokens = self.token_norm(special).flatten(1, 2)
        for block in self.trunk:
            tokens = block(tokens)
        cameras = tokens.reshape(special.shape)[:, :, 0]
        pose: Tensor = self.camera_branch(self.trunk_norm(cameras)).float()
        fields_of_view = functional.relu(pose[..., 7:]) + MIN_FIELD_OF_VIEW
        return (torch.cat([pose[..., :7], fields_of_view], -1),)


class OmegaDenseHead(DenseHead):
    """Depth and the logit of its confidence, by pixel shuffle from the fused map."""

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
