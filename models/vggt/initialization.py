"""Reproducible random weights."""

from __future__ import annotations

import torch
from torch import nn

from models.vggt.aggregator import Aggregator
from models.vggt.block import LayerScale
from models.vggt.config import VGGTConfig
from models.vggt.dino import DinoTransformer
from models.vggt.network import VGGT

LINEAR_STD = 0.02
TOKEN_STD = 1e-6


def random_vggt(config: VGGTConfig, seed: int, layer_scale: float = 0.01) -> VGGT:
    """Build a network with random weights that depend on the seed alone.

    Args:
        config: Sizes.
        seed: Seeds a generator of its own; PyTorch's global one is left as it is.
        layer_scale: Initial factor of the residual branches outside the patch embedding.
    """
    with torch.device("meta"):
        vggt = VGGT(config)
    zeros = {key: torch.zeros(value.shape) for key, value in vggt.state_dict().items()}
    vggt.load_state_dict(zeros, assign=True)
    generator = torch.Generator().manual_seed(seed)
    for module in vggt.modules():
        _initialize(module, generator, layer_scale)
    for block in vggt.aggregator.patch_embed.blocks.modules():
        if isinstance(block, LayerScale):
            nn.init.ones_(block.gamma)
    return vggt


@torch.no_grad()
def _initialize(module: nn.Module, generator: torch.Generator, layer_scale: float) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=LINEAR_STD, generator=generator)
    elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        # Preserves the scale of activations through the rectified stages of the dense heads.
        nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
    elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        nn.init.ones_(module.weight)
    elif isinstance(module, LayerScale):
        nn.init.constant_(module.gamma, layer_scale)
    elif isinstance(module, DinoTransformer):
        nn.init.trunc_normal_(module.pos_embed, std=LINEAR_STD, generator=generator)
        nn.init.normal_(module.cls_token, std=TOKEN_STD, generator=generator)
        nn.init.normal_(module.register_tokens, std=TOKEN_STD, generator=generator)
    elif isinstance(module, Aggregator):
        nn.init.normal_(module.camera_token, std=TOKEN_STD, generator=generator)
        nn.init.normal_(module.register_token, std=TOKEN_STD, generator=generator)
