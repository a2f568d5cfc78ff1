"""Samples of a ray that look at each other."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

NUM_FREQUENCIES = 6


class RayAttention(nn.Module):
    """One pre-norm transformer layer over the samples of a ray."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Linear(2 * NUM_FREQUENCIES, width, bias=False)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = mlp(width, 2 * width, width)

    def forward(
        self,
        points: Float[Tensor, "batch ray sample width"],
        positions: Float[Tensor, "batch ray sample"],
    ) -> Float[Tensor, "batch ray sample width"]:
        """Let each sample look at the others of its ray.

        Written out, because fused attention is made for long sequences: a ray has a few samples,
        and there are more rays than its kernels have blocks.
        """
        points = points + self.position(_fourier(positions).to(points.dtype))
        q, k, v = rearrange(
            self.qkv(self.norm1(points)), "b r s (k h c) -> k b r h s c", k=3, h=self.heads
        )
        attention = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
        mixed = rearrange(attention.to(v.dtype) @ v, "b r h s c -> b r s (h c)")
        points = points + self.proj(mixed)
        return points + self.mlp(self.norm2(points))


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build a perceptron with one hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def _fourier(positions: Float[Tensor, "*batch sample"]) -> Float[Tensor, "*batch sample channel"]:
    """Encode positions in [0, 1] by sines and cosines of doubling frequency."""
    octaves = torch.pi * 2.0 ** torch.arange(NUM_FREQUENCIES, device=positions.device)
    angles = positions[..., None] * octaves.to(positions.dtype)
    return torch.cat([angles.sin(), angles.cos()], -1)
