"""VGGT-Omega's patch embedding and aggregator.

Wang et al., "VGGT-Omega", CVPR 2026. The patch embedding is DINOv3 (Simeoni et al., 2025). Between
views, tokens have no positions; in some blocks only the camera and register tokens of all views
attend to each other, so that what views know of each other passes through few tokens.
"""

from __future__ import annotations

from math import pi

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.vggt.aggregator import ViewTokens
from models.vggt.attention import ROTARY_BASE, Block, Rotations
from models.vggt.config import OmegaConfig


class RotaryPositions(nn.Module):
    """Rotations of patches by their place in the image, whatever its number of patches."""

    periods: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        quarter = head_dim // 4
        # On the CPU also when the network is being laid out on the meta device.
        periods = ROTARY_BASE ** (torch.arange(quarter, device="cpu") / quarter)
        self.register_buffer("periods", periods)

    def forward(self, grid: tuple[int, int], num_special: int) -> Rotations:
        """Return the rotations of one view's tokens; special tokens come first and do not turn.

        The centres of the patches lie in [-1, 1] along the longer side of the image, and from -1
        along the other.
        """
        rows, columns = (
            2 * (torch.arange(count, device=self.periods.device) + 0.5) / max(grid) - 1
            for count in grid
        )
        angles = 2 * pi * torch.cartesian_prod(rows, columns)[..., None] / self.periods
        angles = torch.cat([angles.new_zeros(num_special, *angles.shape[1:]), angles])
        return Rotations(angles.cos(), angles.sin(), distant_pairs=True)


class DinoV3Transformer(nn.Module):
    """Image to tokens, each image on its own."""

    def __init__(self, config: OmegaConfig) -> None:
        super().__init__()
        dim, heads = config.embed_dim, config.dino_heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.storage_tokens = nn.Parameter(torch.zeros(1, config.num_storage_tokens, dim))
        # Only masked pre-training uses it, but checkpoints carry it.
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
        """Return the class, storage and patch tokens of images in ImageNet's normalisation."""
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
    """Turns the views of a scene into tokens that have attended to each other."""

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
        """The blocks between views, by VGGT's name."""
        return self.inter_frame_blocks

    def forward(
        self, images: Float[Tensor, "batch view 3 height width"]
    ) -> tuple[tuple[Float[Tensor, "batch view token channels"], ...], int]:
        """Return the layers that the heads read, and the index of the first patch token.

        A layer holds the tokens after the frame block and, along the channels, those after the
        block between views. A view's tokens are camera, registers, and patches row by row.
        """
        tokens = self.embed(images)
        rotations = self.rope_embed(self.grid(images), self.patch_start)
        kept = []
        for index, (frame_block, inter_block) in enumerate(
            zip(self.frame_blocks, self.inter_frame_blocks, strict=True)
        ):
            in_frame = frame_block(tokens.flatten(0, 1), rotations).reshape(tokens.shape)
            among = self.patch_start if index in self.register_blocks else tokens.shape[2]
            meeting, others = in_frame[:, :, :among], in_frame[:, :, among:]
            met = inter_block(meeting.flatten(1, 2)).reshape(meeting.shape)
            tokens = torch.cat([met, others], 2)
            if index in self.kept_layers:
                kept.append(torch.cat([in_frame, tokens], -1))
        return tuple(kept), self.patch_start
