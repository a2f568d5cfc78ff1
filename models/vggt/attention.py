"""The pre-norm transformer block of all parts of the network, with its rotary position embedding.

The embedding (Su et al., "RoFormer", 2021) is applied per axis: half of a head's channels are
rotated by the token's row, half by its column. In VGGT these are the first and the second half.
Within a half of D channels, channels j and j + D/2 are a pair, and the pair is rotated by the angle
``position * ROTARY_BASE ** (-2 j / D)``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

MLP_RATIO = 4
ROTARY_BASE = 100.0

Tokens = Float[Tensor, "batch token channel"]
HeadTokens = Float[Tensor, "batch head token channel"]
Channels = Float[Tensor, "*batch channel"]


@dataclass(frozen=True)
class Rotations:
    """Cosines and sines for every token and both axes (row, column)."""

    cos: Float[Tensor, "token 2 quarter"]
    sin: Float[Tensor, "token 2 quarter"]
    distant_pairs: bool = False
    """Pair channels half a head apart, as DINOv3 does, instead of a quarter."""

    def repeat(self, views: int) -> Rotations:
        """Return the rotations of the concatenated tokens of several views."""
        cos, sin = self.cos.repeat(views, 1, 1), self.sin.repeat(views, 1, 1)
        return replace(self, cos=cos, sin=sin)


def grid_rotations(
    grid: tuple[int, int], num_special: int, head_dim: int, device: torch.device
) -> Rotations:
    """Return the rotations of one view's tokens.

    Special tokens come first, at position (0, 0); the patch in row r and column c is at
    (r + 1, c + 1). Not cached, because the cost is small.
    """
    rows = torch.arange(1, grid[0] + 1, device=device, dtype=torch.float32)
    columns = torch.arange(1, grid[1] + 1, device=device, dtype=torch.float32)
    patches = torch.cartesian_prod(rows, columns)
    positions = torch.cat([patches.new_zeros(num_special, 2), patches])
    quarter = head_dim // 4
    exponents = torch.arange(quarter, device=device, dtype=torch.float32) / quarter
    angles = positions[..., None] * ROTARY_BASE**-exponents
    return Rotations(angles.cos(), angles.sin())


def rotate(tokens: HeadTokens, rotations: Rotations) -> HeadTokens:
    """Rotate queries or keys by their positions; the result is in single precision."""
    # Channels are (axis, member of the pair, frequency), or (member, axis, frequency).
    pair_axis = -3 if rotations.distant_pairs else -2
    first, second = tokens.float().unflatten(-1, (2, 2, -1)).unbind(pair_axis)
    rotated = (
        first * rotations.cos - second * rotations.sin,
        second * rotations.cos + first * rotations.sin,
    )
    return torch.stack(rotated, pair_axis).flatten(-3)


class KeyMaskedLinear(nn.Linear):
    """Queries, keys and values, whose bias is multiplied by a stored mask: 0 for keys (DINOv3)."""

    bias_mask: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 3 * dim)
        # Constants need values even when the network is built on the meta device.
        mask = torch.tensor([1.0, 0.0, 1.0], device="cpu").repeat_interleave(dim)
        self.register_buffer("bias_mask", mask)

    def forward(self, input: Channels) -> Float[Tensor, "*batch out"]:  # noqa: A002
        """Apply the layers to the last axis."""
        return functional.linear(input, self.weight, self.bias * self.bias_mask)


class Attention(nn.Module):
    """Multi-head self-attention with optional normalised queries and keys."""

    def __init__(self, dim: int, heads: int, qk_norm: bool = False, key_mask: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = KeyMaskedLinear(dim) if key_mask else nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tokens, rotations: Rotations | None = None) -> Tokens:
        """Attend over the token axis; ``rotations`` adds the rotary position embedding."""
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        queries, keys = self.q_norm(queries), self.k_norm(keys)
        if rotations is not None:
            queries, keys = rotate(queries, rotations), rotate(keys, rotations)
        # Norms and rotations run in single precision under autocast; the products do not.
        queries, keys = queries.to(values.dtype), keys.to(values.dtype)
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, tokens: Channels) -> Float[Tensor, "*batch out"]:
        """Apply the layers to the last axis."""
        return self.fc2(functional.gelu(self.fc1(tokens)))


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (Touvron et al., "CaiT", 2021)."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, tokens: Channels) -> Channels:
        """Scale in float32, also under autocast; the residual stream then is float32 too."""
        return tokens * self.gamma


class Block(nn.Module):
    """Attention and MLP, each pre-normed, scaled and added to the residual stream."""

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        eps: float = 1e-5,
        qk_norm: bool = False,
        key_mask: bool = False,
        layer_scale: float = 0.01,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qk_norm, key_mask)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, MLP_RATIO * dim, dim)
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(self, tokens: Tokens, rotations: Rotations | None = None) -> Tokens:
        """Transform the tokens; ``rotations`` add the rotary position embedding."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), rotations))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))
