"""The backbone as the radiance field uses it: fixed weights, any image size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from models.vggt.low_rank import LowRankTuning
from models.vggt.network import VGGT, Head
from models.vggt.preprocess import network_size

FINGERPRINT_SAMPLES = 16


@dataclass(frozen=True)
class BackboneFeatures:
    """Tokens and geometry at the network's resolution; None where a head was not asked."""

    tokens: tuple[Float[Tensor, "batch view channels rows columns"], ...]
    """One map per layer that the heads read, channels last in memory."""
    network_size: tuple[int, int]
    """Height and width of the image that the network saw: the full picture, resized."""
    depth: Float[Tensor, "batch view height width"] | None = None
    """z-depth in the network's own unit."""
    depth_conf: Float[Tensor, "batch view height width"] | None = None
    """Confidence, from 1 up."""
    pose_enc: Float[Tensor, "batch view 9"] | None = None
    """Predicted cameras; see ``pose_encoding``."""


class FrozenVGGT(nn.Module):
    """A backbone that its parent can move between devices, but neither train nor save.

    What a parent can train and save are low-rank additions, if they are asked for.
    """

    network: VGGT

    def __init__(
        self,
        network: VGGT,
        long_side: int | None = None,
        tuned_blocks: int = 0,
        tuned_rank: int = 8,
    ) -> None:
        """Wrap a network.

        Args:
            network: Frozen in place.
            long_side: Longer side, in pixels, of what the network sees; ``None`` means the size
                that it was trained at.
            tuned_blocks: The last so many pairs of attention blocks get low-rank additions.
            tuned_rank: Their rank.
        """
        super().__init__()
        # Past nn.Module's registration, which would show the weights to the parent's
        # parameters(), state_dict() and train().
        object.__setattr__(self, "network", network.requires_grad_(False).eval())
        self.long_side = network.config.img_size if long_side is None else long_side
        self.fingerprint = fingerprint(network)
        self.tuning = (
            LowRankTuning(network.aggregator, tuned_blocks, tuned_rank) if tuned_blocks else None
        )

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
        """Look at a scene's views.

        Gradients reach low-rank additions through the tokens, and nothing else.

        Args:
            images: RGB in [0, 1] of any size; the full picture is resized for the network.
            heads: Heads to run on the tokens.
        """
        patch = self.network.config.patch_size
        size = network_size(images.shape[-2], images.shape[-1], self.long_side, patch)
        resized = resize_images(images.detach(), size)
        # Normalisation layers and the residual stream stay in float32 under autocast.
        on_gpu = images.device.type == "cuda"
        learning = self.tuning is not None and torch.is_grad_enabled()
        precision = torch.autocast(images.device.type, torch.bfloat16, enabled=on_gpu)
        with torch.set_grad_enabled(learning), precision:
            layers, patch_start = self.network.aggregator(resized)
        with torch.no_grad():
            prediction = self.network.predict(layers, size, heads)
        grid = (size[0] // patch, size[1] // patch)
        maps = [layer[:, :, patch_start:].unflatten(2, grid) for layer in layers]
        return BackboneFeatures(
            tokens=tuple(tokens.permute(0, 1, 4, 2, 3) for tokens in maps),
            network_size=size,
            depth=None if prediction.depth is None else prediction.depth.squeeze(-1),
            depth_conf=prediction.depth_conf,
            pose_enc=prediction.pose_enc,
        )


def resize_images(
    images: Float[Tensor, "batch view 3 height width"], size: tuple[int, int]
) -> Float[Tensor, "batch view 3 new_height new_width"]:
    """Resize as the network's own preprocessing does: bicubic, antialiased, within [0, 1]."""
    if images.shape[-2:] == size:
        return images
    flat = functional.interpolate(
        images.flatten(0, 1), size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return flat.clamp(0, 1).unflatten(0, images.shape[:2])


def fingerprint(network: nn.Module) -> str:
    """Return a short string that differs between networks of different weights or shapes.

    Hashes names, shapes and a few evenly spread values of every tensor, so it is cheap also for
    a billion parameters.
    """
    digest = hashlib.sha256()
    samples = []
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().reshape(-1)
        samples.append(flat[:: max(1, flat.numel() // FINGERPRINT_SAMPLES)].float())
    digest.update(torch.cat(samples).cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
