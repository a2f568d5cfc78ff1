"""VGGT's heads: cameras, refined iteratively, and dense maps from four layers of tokens.

The dense heads are VGGT's variant of DPT (Ranftl et al., "Vision transformers for dense
prediction", 2021). Attribute names are the keys of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.vggt.attention import Block, Mlp
from models.vggt.config import VGGTConfig

POSE_DIM = 9
ITERATIONS = 4
"""Iterations of the camera head."""
POSITION_WEIGHT = 0.1
POSITION_BASE = 100.0
HIDDEN_CHANNELS = 32
VIEWS_AT_ONCE = 8

Maps = Float[Tensor, "view channel height width"]
LargerMaps = Float[Tensor, "view channel new_height new_width"]
Layers = Sequence[Float[Tensor, "view _ _ _"]]
"""Maps of four sizes, fine to coarse."""


class CameraHead(nn.Module):
    """Refines all cameras of a scene jointly, from their tokens and the previous estimate."""

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        dim = config.token_dim
        self.token_norm = nn.LayerNorm(dim)
        self.trunk = nn.ModuleList(
            Block(dim, config.camera_heads) for _ in range(config.trunk_depth)
        )
        self.trunk_norm = nn.LayerNorm(dim)
        self.empty_pose_tokens = nn.Parameter(torch.zeros(1, 1, POSE_DIM))
        self.embed_pose = nn.Linear(POSE_DIM, dim)
        self.poseLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.adaln_norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.pose_branch = Mlp(dim, dim // 2, POSE_DIM)

    def forward(
        self, special: Float[Tensor, "batch view token channel"]
    ) -> tuple[Float[Tensor, "batch view 9"], ...]:
        """Return the pose encoding (see ``pose_encoding``) of every iteration.

        Only the first special token of each view, the camera token, is read.
        """
        tokens = self.token_norm(special[:, :, 0])
        normalised = self.adaln_norm(tokens)
        pose: Tensor | None = None
        poses = []
        for _ in range(ITERATIONS):
            # No gradient through the estimate: each iteration learns a correction by itself.
            estimate = self.empty_pose_tokens if pose is None else pose.detach()
            modulation = self.poseLN_modulation(self.embed_pose(estimate))
            shift, scale, gate = modulation.chunk(3, -1)
            hidden = tokens + gate * (normalised * (1 + scale) + shift)
            for block in self.trunk:
                hidden = block(hidden)
            delta: Tensor = self.pose_branch(self.trunk_norm(hidden)).float()
            pose = delta if pose is None else pose + delta
            poses.append(torch.cat([pose[..., :7], functional.relu(pose[..., 7:])], -1))
        return tuple(poses)


class ResidualUnit(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, channels: int, rectified_skip: bool) -> None:
        super().__init__()
        self.rectified_skip = rectified_skip
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Maps) -> Maps:
        """Add the convolutions' output to x or, as VGGT's published weights need, to relu(x)."""
        rectified = functional.relu(features)
        hidden = functional.relu(self.conv1(rectified))
        return (rectified if self.rectified_skip else features) + self.conv2(hidden)


class FusionStage(nn.Module):
    """Adds a finer layer to the fused coarser ones and upsamples the sum."""

    def __init__(self, channels: int, has_skip: bool, rectified_skip: bool) -> None:
        super().__init__()
        if has_skip:
            self.resConfUnit1 = ResidualUnit(channels, rectified_skip)
        self.resConfUnit2 = ResidualUnit(channels, rectified_skip)
        self.out_conv = nn.Conv2d(channels, channels, 1)

    def forward(self, coarse: Maps, skip: Maps | None, size: Sequence[int]) -> LargerMaps:
        """Return the fused map at (height, width) ``size``."""
        if skip is not None:
            coarse = coarse + self.resConfUnit1(skip)
        # A 1x1 convolution commutes with interpolation and is cheaper before it.
        return upsample(self.out_conv(self.resConfUnit2(coarse)), size)


class Fusion(nn.Module):
    """DPT's fusion of four layers, coarse to fine."""

    def __init__(self, config: VGGTConfig, rectified_skip: bool) -> None:
        super().__init__()
        channels = config.features
        for index, width in enumerate(config.out_channels, start=1):
            adapt = nn.Conv2d(width, channels, 3, padding=1, bias=False)
            self.add_module(f"layer{index}_rn", adapt)
        for index in range(1, 5):
            stage = FusionStage(channels, index < 4, rectified_skip)
            self.add_module(f"refinenet{index}", stage)

    def fuse(self, layers: Layers, scale: int) -> Float[Tensor, "view channel height width"]:
        """Fuse four layers, fine to coarse, into one map of ``scale`` times the finest's size."""
        adapted = [self.get_submodule(f"layer{i}_rn")(x) for i, x in enumerate(layers, start=1)]
        height, width = adapted[0].shape[-2:]
        sizes = [(scale * height, scale * width), *(layer.shape[-2:] for layer in adapted)]
        fused, skips = adapted[-1], [*adapted[:-1], None]
        for i in (3, 2, 1, 0):
            fused = self.get_submodule(f"refinenet{i + 1}")(fused, skips[i], sizes[i])
        return fused


class Scratch(Fusion):
    """VGGT's fusion stages and output convolutions."""

    def __init__(self, config: VGGTConfig, out: int) -> None:
        super().__init__(config, rectified_skip=True)
        channels = config.features
        self.output_conv1 = nn.Conv2d(channels, channels // 2, 3, padding=1)
        hidden = nn.Conv2d(channels // 2, HIDDEN_CHANNELS, 3, padding=1)
        self.output_conv2 = nn.Sequential(hidden, nn.ReLU(), nn.Conv2d(HIDDEN_CHANNELS, out, 1))


class DenseHead(nn.Module):
    """Base of the dense heads: tokens to raw values and, in the last channel, a logit.

    The logit is that of the values' confidence.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        first, second, _, fourth = config.out_channels
        self.norm = nn.LayerNorm(config.token_dim)
        self.projects = nn.ModuleList(
            nn.Conv2d(config.token_dim, channels, 1) for channels in config.out_channels
        )
        upsample4 = nn.ConvTranspose2d(first, first, 4, stride=4)
        upsample2 = nn.ConvTranspose2d(second, second, 2, stride=2)
        halve = nn.Conv2d(fourth, fourth, 3, stride=2, padding=1)
        self.resize_layers = nn.ModuleList([upsample4, upsample2, nn.Identity(), halve])

    def forward(
        self, layers: Sequence[Float[Tensor, "batch view patch channel"]], size: tuple[int, int]
    ) -> Float[Tensor, "batch view height width out"]:
        """Predict at the network's input ``size`` (height, width) from patch tokens.

        Without gradients, views are processed in chunks to bound the memory.
        """
        batch = len(layers[0])
        flat = [layer.flatten(0, 1) for layer in layers]
        chunk = len(flat[0]) if torch.is_grad_enabled() else VIEWS_AT_ONCE
        chunks = zip(*(layer.split(chunk) for layer in flat), strict=True)
        maps = torch.cat([self._predict(chunk, size) for chunk in chunks])
        return maps.unflatten(0, (batch, -1)).permute(0, 1, 3, 4, 2)

    def _predict(self, layers: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        grid = (size[0] // self.patch_size, size[1] // self.patch_size)
        maps = []
        for layer, project, resize in zip(layers, self.projects, self.resize_layers, strict=True):
            tokens = self.norm(layer).transpose(1, 2).unflatten(2, grid)
            maps.append(resize(add_positions(project(tokens), size)))
        return self.decode(maps, size)

    def decode(self, layers: Layers, size: tuple[int, int]) -> LargerMaps:
        """Turn four maps, fine to coarse, into raw values at (height, width) ``size``."""
        raise NotImplementedError


class DptHead(DenseHead):
    """VGGT's dense head, with convolutions at the size of the image."""

    def __init__(self, config: VGGTConfig, out: int) -> None:
        super().__init__(config)
        self.scratch = Scratch(config, out)

    def decode(self, layers: Layers, size: tuple[int, int]) -> LargerMaps:
        """Turn four maps into ``out`` channels of values."""
        fused = upsample(self.scratch.output_conv1(self.scratch.fuse(layers, scale=2)), size)
        return self.scratch.output_conv2(add_positions(fused, size))


def add_positions(features: Maps, image_size: tuple[int, int]) -> Maps:
    """Add sines and cosines of the position in the image, in units of its half diagonal.

    The first half of the channels gets the embedding of the column, the second that of the row.
    """
    _, channels, height, width = features.shape
    aspect = image_size[1] / image_size[0]
    diagonal = (aspect**2 + 1) ** 0.5
    columns = _axis_embedding(width, aspect / diagonal, channels // 4, features.device)
    rows = _axis_embedding(height, 1 / diagonal, channels // 4, features.device)
    positions = torch.cat(
        [columns[:, None, :].expand(-1, height, -1), rows[:, :, None].expand(-1, -1, width)]
    )
    return features + POSITION_WEIGHT * positions


def _axis_embedding(
    count: int, span: float, frequencies: int, device: torch.device
) -> Float[Tensor, "channel position"]:
    """Return sines, then cosines, of ``count`` cell centres that cover [-span, span]."""
    last = span * (count - 1) / count
    centres = torch.linspace(-last, last, count, device=device, dtype=torch.float32)
    exponents = torch.arange(frequencies, device=device, dtype=torch.float64) / frequencies
    angles = POSITION_BASE ** -exponents[:, None] * centres
    return torch.cat([angles.sin(), angles.cos()]).float()


def upsample(features: Maps, size: Sequence[int]) -> LargerMaps:
    """Interpolate bilinearly with aligned corners."""
    return functional.interpolate(features, size=list(size), mode="bilinear", align_corners=True)
