"""Stateless noise: integer hashes of lattice points, and what is built on them.

32-bit integer arithmetic that wraps is the same on every device, so the same surface looks the
same wherever it is rendered.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.renderer.kernels import fused

_X, _Y, _Z, _SEED = 374761393, 668265263, 1440662683, 974634777
_MIX = 1274126177

Lattice = Int[Tensor, "*#batch"]
Field = Float[Tensor, "*batch"]
Points = Float[Tensor, "*batch 3"]
Seeds = Int[Tensor, "*batch"]


def _finish(state: Seeds) -> Field:
    state = (state ^ ((state >> 13) & 0x7FFFF)) * _MIX
    state = state ^ ((state >> 16) & 0xFFFF)
    return (state & 0xFFFFFF).float() * (1 / 0x1000000)


def hashed(x: Lattice, y: Lattice, seed: Lattice | int = 0) -> Field:
    """Map lattice points to numbers in [0, 1); all int32."""
    return _finish(x * _X + y * _Y + seed * _SEED)


def whole(values: Field) -> Seeds:
    """Round down to int32."""
    return values.floor().to(torch.int32)


def noise_and_slope(points: Points, seed: Seeds) -> tuple[Field, Points]:
    """Smooth value noise in [-1, 1] with unit feature size, and its gradient."""
    cell = points.floor()
    fraction = points - cell
    x, y, z = cell.to(torch.int32).unbind(-1)
    u, v, w = (fraction * fraction * (3 - 2 * fraction)).unbind(-1)
    du, dv, dw = (6 * fraction * (1 - fraction)).unbind(-1)
    xs, ys, zs = (
        (axis, axis + prime)
        for axis, prime in ((x * _X + seed * _SEED, _X), (y * _Y, _Y), (z * _Z, _Z))
    )
    corners = [_finish(i + j + k) for k in zs for j in ys for i in xs]
    faces = _lerp(corners, u)
    edges = _lerp(faces, v)
    rise_x = _lerp(_lerp(_rises(corners), v), w)[0]
    slope = [du * rise_x, dv * _lerp(_rises(faces), w)[0], dw * _rises(edges)[0]]
    return 2 * _lerp(edges, w)[0] - 1, 2 * torch.stack(slope, -1)


def _rises(values: list[Tensor]) -> list[Tensor]:
    """Return the differences of neighbours along an axis."""
    return [high - low for low, high in zip(values[::2], values[1::2], strict=True)]


def _lerp(values: list[Tensor], share: Tensor) -> list[Tensor]:
    """Interpolate between neighbours along an axis."""
    return [low + share * rise for low, rise in zip(values[::2], _rises(values), strict=True)]


@fused
def octaves(points: Points, seed: Seeds, footprint: Field) -> tuple[Field, Points]:
    """Sum four octaves of noise, each about half as strong and twice as fine; also the gradient.

    Octaves finer than a pixel (``footprint`` is its size in units of the first octave) fade out.
    """
    total, slope = torch.zeros_like(footprint), torch.zeros_like(points)
    scale, strength = 1.0, 0.55
    for octave in range(4):
        value, gradient = noise_and_slope(points * scale, seed + 31 * octave)
        kept = strength * (1.6 - 2.0 * scale * footprint).clamp(0, 1)
        total = total + kept * value
        slope = slope + (kept * scale)[..., None] * gradient
        # An irrational ratio keeps the lattices of two octaves from lining up.
        scale, strength = scale * 2.17, strength * 0.55
    return total, slope
