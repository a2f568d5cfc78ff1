"""What matched pixels say about a pair of cameras."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.matching import halfway_points
from utils.cameras import Cameras, to_camera

_MIN_ANGLE = 1.0
"""Degrees between two rays below which their point's depth is not trusted."""


@dataclass(frozen=True)
class PairFit:
    """How well a pair of cameras explains matches."""

    epipolar: Float[Tensor, " match"]
    """Pixels between each match and its epipolar line, the mean of both images."""
    depths: Float[Tensor, "2 match"]
    """Triangulated z-depth in both cameras; negative behind a camera."""
    trusted: Float[Tensor, " match"]
    """1 where the rays meet at an angle that fixes the depth, else 0."""

    @property
    def in_front(self) -> float:
        """Share of the trusted points that lie in front of both cameras; 1 if none is."""
        count = self.trusted.sum().item()
        front = (self.depths > 0).all(0).float()
        return (front * self.trusted).sum().item() / count if count else 1.0


def fit_pair(pixels: Float[Tensor, "2 match 2"], cameras: Cameras) -> PairFit:
    """Compare matches with cameras; both batch axes are (view,) of length 2."""
    cameras = Cameras(cameras.intrinsics.double(), cameras.c2w.double())
    pixels = pixels.double()
    points, angles = halfway_points(pixels, cameras)
    depths = to_camera(points.expand(2, -1, -1), cameras)[..., 2]
    return PairFit(
        epipolar=_epipolar_distances(pixels, cameras).float(),
        depths=depths.float(),
        trusted=(angles > _MIN_ANGLE).float(),
    )


def _epipolar_distances(pixels: Float[Tensor, "2 match 2"], cameras: Cameras) -> Tensor:
    relative = cameras.w2c[1] @ cameras.c2w[0]
    x, y, z = relative[:3, 3]
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    inverse = torch.linalg.inv(cameras.intrinsics)
    fundamental = inverse[1].T @ cross @ relative[:3, :3] @ inverse[0]
    first, second = torch.cat([pixels, torch.ones_like(pixels[..., :1])], -1)
    lines_in_second, lines_in_first = first @ fundamental.T, second @ fundamental
    products = (second * lines_in_second).sum(-1).abs()
    lengths = [
        line[:, :2].norm(dim=-1).clamp_min(1e-12) for line in (lines_in_second, lines_in_first)
    ]
    return (products / lengths[0] + products / lengths[1]) / 2
