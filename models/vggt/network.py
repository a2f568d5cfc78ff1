"""VGGT and VGGT-Omega: images of a scene to cameras, depth and, in VGGT, points.

Wang et al., "VGGT: Visual Geometry Grounded Transformer", CVPR 2025, and "VGGT-Omega", CVPR 2026.
Predictions are in the frame of the first view, in a unit of length that varies with the scene.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from models.vggt.aggregator import Aggregator, DinoTransformer, ViewTokens
from models.vggt.attention import LayerScale
from models.vggt.config import OmegaConfig, VGGTConfig
from models.vggt.heads import CameraHead, DptHead
from models.vggt.omega import (
    DinoV3Transformer,
    OmegaAggregator,
    OmegaCameraHead,
    OmegaDenseHead,
)
from models.vggt.weights import load_weights, read_config, save_weights
from utils.files import from_repository

Head = Literal["camera", "depth", "points"]
ALL_HEADS: tuple[Head, ...] = ("camera", "depth", "points")
RANGE_TOLERANCE = 1e-3
LINEAR_STD = 0.02
TOKEN_STD = 1e-6


@dataclass(frozen=True)
class VGGTPrediction:
    """Outputs of the heads; None where a head did not run."""

    pose_enc: Float[Tensor, "batch view 9"] | None = None
    """World-to-camera transforms and fields of view; see ``pose_encoding``."""
    pose_encodings: tuple[Float[Tensor, "batch view 9"], ...] = ()
    """Every iteration of the camera head; the last is ``pose_enc``."""
    depth: Float[Tensor, "batch view height width 1"] | None = None
    """z-depth."""
    depth_conf: Float[Tensor, "batch view height width"] | None = None
    """Confidence, from 1 up."""
    world_points: Float[Tensor, "batch view height width 3"] | None = None
    """Points in the first camera's frame."""
    world_points_conf: Float[Tensor, "batch view height width"] | None = None
    """Confidence, from 1 up."""


class VGGT(nn.Module):
    """The whole network: VGGT-Omega if the config is an ``OmegaConfig``, else VGGT.

    Attribute names are the keys of the published checkpoints.
    """

    def __init__(self, config: VGGTConfig) -> None:
        super().__init__()
        self.config = config
        if isinstance(config, OmegaConfig):
            self.aggregator = OmegaAggregator(config)
            self.camera_head = OmegaCameraHead(config)
            self.dense_head = OmegaDenseHead(config)
        else:
            self.aggregator = Aggregator(config)
            self.camera_head = CameraHead(config)
            self.depth_head = DptHead(config, out=2)
            self.point_head = DptHead(config, out=4)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> VGGT:
        """Load ``config.json`` and the weights of a folder, in evaluation mode and float32."""
        folder = from_repository(folder)
        config = read_config(folder)
        with torch.device("meta"):  # Do not initialise weights that are then overwritten.
            vggt = cls(config)
        load_weights(vggt, folder)
        return vggt.eval()

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write a folder for ``from_pretrained``, in half precision; return the weights file."""
        return save_weights(self, self.config, Path(folder))

    def forward(
        self,
        images: Float[Tensor, "batch view 3 height width"],
        heads: Collection[Head] = ALL_HEADS,
    ) -> VGGTPrediction:
        """Run heads on RGB images in [0, 1] whose sides are multiples of the patch size."""
        check_images(images, self.config.patch_size)
        layers, _ = self.aggregator(images)
        return self.predict(layers, (images.shape[-2], images.shape[-1]), heads)

    def predict(
        self,
        layers: Sequence[Float[Tensor, "batch view token channels"]],
        size: tuple[int, int],
        heads: Collection[Head] = ALL_HEADS,
        full_precision: bool = True,
    ) -> VGGTPrediction:
        """Run heads on the aggregator's layers for images of (height, width) ``size``.

        VGGT-Omega has no head for points, which stay None. ``full_precision`` suspends autocast, as
        the official code does.
        """
        results: dict[str, Tensor | tuple[Tensor, ...]] = {}
        start, omega = self.config.patch_start, isinstance(self.config, OmegaConfig)
        patches = [layer[:, :, start:] for layer in layers]
        no_autocast = torch.autocast(layers[0].device.type, enabled=False)
        with no_autocast if full_precision else nullcontext():
            if "camera" in heads:
                poses = self.camera_head(layers[-1][:, :, :start])
                results.update(pose_enc=poses[-1], pose_encodings=poses)
            if "depth" in heads:
                head = self.dense_head if omega else self.depth_head
                values, logits = head(patches, size).float().split([1, 1], -1)
                results.update(depth=values.exp(), depth_conf=_confidence(logits))
            if "points" in heads and not omega:
                values, logits = self.point_head(patches, size).float().split([3, 1], -1)
                points = values.sign() * values.abs().expm1()
                results.update(world_points=points, world_points_conf=_confidence(logits))
        return VGGTPrediction(**results)  # pyright: ignore[reportArgumentType]


def check_images(images: Tensor, patch_size: int) -> None:
    """Refuse images of wrong axes, type or size; on a CPU also of a wrong range.

    Checking the range on a GPU would synchronise with it.
    """
    if images.ndim != 5 or images.shape[2] != 3 or not images.is_floating_point():
        raise ValueError(
            "expected floating-point images (batch, view, 3, height, width), got "
            f"{images.dtype} {tuple(images.shape)}"
        )
    height, width = images.shape[-2:]
    if 0 in images.shape or height % patch_size or width % patch_size:
        raise ValueError(
            f"images of height {height} and width {width} (shape {tuple(images.shape)}): both "
            f"sides must be positive multiples of the patch, {patch_size}"
        )
    if images.device.type == "cpu" and not torch.compiler.is_compiling():
        low, high = images.detach().aminmax()
        if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
            raise ValueError(f"images must lie in [0, 1], got [{low:.4g}, {high:.4g}]")


def _confidence(logits: Tensor) -> Tensor:
    return 1 + logits.squeeze(-1).exp()


def random_vggt(config: VGGTConfig, seed: int, layer_scale: float = 0.01) -> VGGT:
    """Build a network with random weights that depend only on the seed.

    ``layer_scale`` is the initial factor of residual branches outside the patch embedding.
    """
    with torch.device("meta"):
        vggt = VGGT(config)
    state = vggt.state_dict().items()
    zeros = {key: torch.zeros(value.shape) if value.is_meta else value for key, value in state}
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
        # Preserve the scale of activations through the ReLUs of the dense heads.
        nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
    elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        nn.init.ones_(module.weight)
    elif isinstance(module, LayerScale):
        nn.init.constant_(module.gamma, layer_scale)
    elif isinstance(module, DinoTransformer):
        nn.init.trunc_normal_(module.pos_embed, std=LINEAR_STD, generator=generator)
        nn.init.normal_(module.cls_token, std=TOKEN_STD, generator=generator)
        nn.init.normal_(module.register_tokens, std=TOKEN_STD, generator=generator)
    elif isinstance(module, DinoV3Transformer):
        nn.init.normal_(module.cls_token, std=LINEAR_STD, generator=generator)
        nn.init.normal_(module.storage_tokens, std=LINEAR_STD, generator=generator)
    elif isinstance(module, ViewTokens):
        nn.init.normal_(module.camera_token, std=TOKEN_STD, generator=generator)
        nn.init.normal_(module.register_token, std=TOKEN_STD, generator=generator)
