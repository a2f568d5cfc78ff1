"""The pre-norm transformer block that every part of the network is made of."""

from __future__ import annotations

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.vggt.rope import Rotations, rotate

MLP_RATIO = 4


class Attention(nn.Module):
    """Multi-head self-attention with optional normalised queries and keys."""

    def __init__(self, dim: int, heads: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(dim // heads) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, tokens: Float[Tensor, "batch token channel"], rotations: Rotations | None = None
    ) -> Float[Tensor, "batch token channel"]:
        """Attend over the token axis; ``rotations`` adds the rotary position embedding."""
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        queries, keys = self.q_norm(queries), self.k_norm(keys)
        if rotations is not None:
            queries, keys = rotate(queries, rotations), rotate(keys, rotations)
        # Norm and rotation run in single precision even where the products do not.
        queries, keys = queries.to(values.dtype), keys.to(values.dtype)
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        return self.proj(attended.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, dim: int, hidden: int, out: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, tokens: Float[Tensor, "*batch channel"]) -> Float[Tensor, "*batch out"]:
        """Apply to the last axis."""
        return self.fc2(functional.gelu(self.fc1(tokens)))


class LayerScale(nn.Module):
    """A learned factor per channel on a residual branch (Touvron et al., "CaiT", 2021)."""

    def __init__(self, dim: int, initial: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), initial))

    def forward(self, tokens: Float[Tensor, "*batch channel"]) -> Float[Tensor, "*batch channel"]:
        """Scale. Under autocast this lifts the branch, and so the residual sum, to float32."""
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
        layer_scale: float = 0.01,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads, qk_norm)
        self.ls1 = LayerScale(dim, layer_scale)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, MLP_RATIO * dim, dim)
        self.ls2 = LayerScale(dim, layer_scale)

    def forward(
        self, tokens: Float[Tensor, "batch token channel"], rotations: Rotations | None = None
    ) -> Float[Tensor, "batch token channel"]:
        """Transform the tokens; positions enter through ``rotations`` alone."""
        tokens = tokens + self.ls1(self.attn(self.norm1(tokens), rotations))
        return tokens + self.ls2(self.mlp(self.norm2(tokens)))


def compile_blocks(
    network: nn.Module, *, dynamic: bool, except_for: Collection[nn.Module] = ()
) -> None:
    """Compile every block of a network in place; its state dict keeps its keys.

    All blocks of one kind share a graph, so this starts in a fraction of the time that compiling
    the whole network takes.

    Args:
        network: Anything that contains blocks.
        dynamic: Whether one graph should serve all image sizes and numbers of views.
        except_for: Blocks to leave as they are: hooks inside a compiled one are not called.
    """
    for module in network.modules():
        if isinstance(module, Block) and module not in except_for:
            module.compile(dynamic=dynamic)
