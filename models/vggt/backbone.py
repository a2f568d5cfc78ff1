"""The backbone of the radiance field: a frozen VGGT for images of any size, or none."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.config import BackboneConfig
from models.vggt.adapters import LowRankTuning
from models.vggt.attention import Block
from models.vggt.config import OmegaConfig, VGGTConfig
from models.vggt.network import VGGT, Head, VGGTPrediction, random_vggt
from models.vggt.weights import read_config
from utils.errors import UserError
from utils.files import from_repository

logger = logging.getLogger(__name__)

FINGERPRINT_SAMPLES = 16


@dataclass(frozen=True)
class BackboneFeatures:
    """Tokens and geometry; None where a head did not run."""

    tokens: tuple[Float[Tensor, "batch view channels rows columns"], ...]
    """One map of patch tokens per layer that the heads read, channels last in memory."""
    network_size: tuple[int, int]
    """Height and width of the network's input: the whole image, resized."""
    depth: Float[Tensor, "batch view height width"] | None = None
    """z-depth in the network's unit."""
    depth_conf: Float[Tensor, "batch view height width"] | None = None
    """Confidence, from 1 up."""
    pose_enc: Float[Tensor, "batch view 9"] | None = None
    """Predicted cameras; see ``pose_encoding``."""
    prediction: VGGTPrediction | None = None
    """All outputs of the heads, with gradients if the network is trained."""


class FrozenVGGT(nn.Module):
    """A frozen VGGT that follows its parent module between devices.

    Low-rank adapters are trained with the parent; the network itself only after ``unfreeze``.
    """

    network: VGGT

    def __init__(
        self,
        network: VGGT,
        long_side: int | None = None,
        tuned_blocks: int = 0,
        tuned_rank: int = 8,
    ) -> None:
        """Freeze a network in place; ``long_side`` of its input defaults to that of its training.

        The last ``tuned_blocks`` pairs of attention blocks get adapters of rank ``tuned_rank``.
        """
        super().__init__()
        # Bypass nn.Module's registration: the network is not part of the parent's parameters(),
        # state_dict() and train().
        object.__setattr__(self, "network", network.requires_grad_(False).eval())
        self.long_side = network.config.img_size if long_side is None else long_side
        self.fingerprint = fingerprint(network)
        self.tuning: LowRankTuning | None = None
        if tuned_blocks:
            self.tuning = LowRankTuning(network.aggregator, tuned_blocks, tuned_rank)

    def unfreeze(self) -> VGGT:
        """Make all weights of the network trainable, and return it; the caller optimises them."""
        _convert_linear_layers(self.network.aggregator, torch.float32)
        return self.network.requires_grad_(True)

    def compile_blocks(self) -> None:
        """Compile the transformer blocks and VGGT's depth head, once per shape."""
        # All blocks share one compiled function, whose graphs PyTorch limits.
        torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
        for block in self.network.modules():
            if isinstance(block, Block):
                block.compile(dynamic=False)
        if not isinstance(self.network.config, OmegaConfig):
            self.network.depth_head.compile(dynamic=False)

    @property
    def learns(self) -> bool:
        """Whether the network itself is trained."""
        return next(self.network.parameters()).requires_grad

    @property
    def token_channels(self) -> int:
        """Channels of the token maps."""
        return self.network.config.token_dim

    @property
    def num_layers(self) -> int:
        """Number of the token maps."""
        return len(self.network.config.intermediate_layer_idx)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FrozenVGGT:
        super()._apply(fn, recurse)
        self.network._apply(fn, recurse)
        return self

    def forward(
        self,
        images: Float[Tensor, "batch view 3 height width"],
        heads: Collection[Head] = ("depth",),
    ) -> BackboneFeatures:
        """Return the features of views, which may have any size."""
        patch = self.network.config.patch_size
        size = network_size(images.shape[-2], images.shape[-1], self.long_side, patch)
        resized = resize_images(images.detach(), size)
        # Normalisation layers and the residual stream stay in float32 under autocast.
        on_gpu = images.device.type == "cuda"
        learns = self.learns and torch.is_grad_enabled()
        tuned = self.tuning is not None and torch.is_grad_enabled()
        precision = torch.autocast(images.device.type, torch.bfloat16, enabled=on_gpu)
        if not self.learns:
            precision_of_weights = torch.bfloat16 if on_gpu else torch.float32
            _convert_linear_layers(self.network.aggregator, precision_of_weights)
        with torch.set_grad_enabled(learns or tuned), precision:
            layers, patch_start = self.network.aggregator(resized)
        with torch.set_grad_enabled(learns):
            prediction = self.network.predict(layers, size, heads)
        grid = (size[0] // patch, size[1] // patch)
        maps = [layer[:, :, patch_start:].unflatten(2, grid) for layer in layers]
        return BackboneFeatures(
            tokens=tuple(tokens.permute(0, 1, 4, 2, 3) for tokens in maps),
            network_size=size,
            depth=None if prediction.depth is None else prediction.depth.squeeze(-1),
            depth_conf=prediction.depth_conf,
            pose_enc=prediction.pose_enc,
            prediction=prediction,
        )


def _convert_linear_layers(aggregator: nn.Module, dtype: torch.dtype) -> None:
    """Convert the weights of linear layers once, so that autocast need not in each call.

    Results equal those of autocast bit for bit. Converting back does not undo the rounding.
    """
    layers = [layer for layer in aggregator.modules() if isinstance(layer, nn.Linear)]
    if layers and layers[0].weight.dtype != dtype:
        for layer in layers:
            layer.to(dtype)


def network_size(height: int, width: int, long_side: int, patch: int) -> tuple[int, int]:
    """Return the (height, width) to which a whole image is resized for the network.

    The long side becomes ``long_side``, a positive multiple of the patch size; the short side the
    multiple that best preserves the aspect ratio.
    """
    if long_side < patch or long_side % patch:
        below = max(1, long_side // patch) * patch
        raise ValueError(
            f"backbone_size={long_side} must be a positive multiple of the patch {patch}, for "
            f"example {below} or {below + patch}"
        )
    short_patches = round(min(height, width) * long_side / max(height, width) / patch)
    short_side = patch * max(1, short_patches)
    return (short_side, long_side) if width >= height else (long_side, short_side)


def resize_images(
    images: Float[Tensor, "batch view 3 height width"], size: tuple[int, int]
) -> Float[Tensor, "batch view 3 new_height new_width"]:
    """Resize as the official preprocessing does: bicubic, antialiased, clamped to [0, 1]."""
    if images.shape[-2:] == size:
        return images
    flat = functional.interpolate(
        images.flatten(0, 1), size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return flat.clamp(0, 1).unflatten(0, images.shape[:2])


def fingerprint(network: nn.Module) -> str:
    """Hash names, shapes and a few evenly spaced values of every tensor."""
    digest = hashlib.sha256()
    samples = []
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().reshape(-1)
        samples.append(flat[:: max(1, flat.numel() // FINGERPRINT_SAMPLES)].float())
    digest.update(torch.cat(samples).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


class NullBackbone(nn.Module):
    """The null backbone of the ablation: no tokens and no geometry."""

    fingerprint = "none"
    token_channels = 0
    num_layers = 0

    def forward(
        self,
        images: Float[Tensor, "batch view 3 height width"],
        heads: Collection[Head] = (),
    ) -> BackboneFeatures:
        """Return neither tokens nor geometry."""
        return BackboneFeatures(tokens=(), network_size=(images.shape[-2], images.shape[-1]))


Backbone = FrozenVGGT | NullBackbone


def load_backbone(config: BackboneConfig) -> Backbone:
    """Load the backbone; log a warning if its weights are random."""
    if config.backbone != "none":
        check_backbone_size(config.backbone_size, config.vggt_path)
    return _load_any_size(config)


def _load_any_size(config: BackboneConfig) -> Backbone:
    if config.backbone == "none":
        return NullBackbone()
    if config.random_backbone:
        logger.warning(
            "RANDOM BACKBONE: %s is used without its weights; its features carry no geometry",
            config.vggt_path,
        )
        network = random_vggt(read_config(config.vggt_path), seed=0)
    else:
        network = VGGT.from_pretrained(config.vggt_path)
    return FrozenVGGT(network, config.backbone_size, config.tuned_blocks, config.tuned_rank)


def checked_backbone(config: BackboneConfig, trained_on: str, path: str | Path) -> Backbone:
    """Load the backbone of a checkpoint, and refuse another than it was trained on.

    The size of its input is checked last, because another backbone is the likelier error.
    """
    backbone = _load_any_size(config)
    if backbone.fingerprint != trained_on:
        raise UserError(
            f"{path}: was trained on another backbone (fingerprint {trained_on}; "
            f"{config.vggt_path} has {backbone.fingerprint}); point --vggt_path at the backbone it "
            "was trained on"
        )
    if isinstance(backbone, FrozenVGGT):
        check_backbone_size(config.backbone_size, config.vggt_path)
    return backbone


def check_backbone_size(size: int, *folders: str) -> None:
    """Refuse an input size that is not a multiple of the backbone's patch size.

    Reads ``config.json`` of the first folder that has one; without any, VGGT's patch is assumed.
    """
    existing = [name for name in folders if (from_repository(name) / "config.json").is_file()]
    patch = read_config(existing[0]).patch_size if existing else VGGTConfig.patch_size
    try:
        network_size(patch, patch, size, patch)
    except ValueError as error:
        raise UserError(str(error)) from error
