"""Sizes of the geometry transformers, VGGT and VGGT-Omega; importable without torch."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from utils.settings import Length, Settings, Within

_MOST = 8192
"""Maximum of channels, heads and pixels; VGGT-1B has 1024 channels and 518 pixels."""
_MOST_WEIGHTS = 10**10
"""Maximum of weights in all attention blocks; VGGT-1B has about 10^9."""
Size = Annotated[int, Within(1, _MOST)]
Blocks = Annotated[int, Within(1, 256)]
FourInts = Annotated[tuple[int, ...], Length((4,))]
Tokens = Annotated[int, Within(0, 1024)]


@dataclass(frozen=True)
class VGGTConfig(Settings):
    """Sizes of the network; the defaults are those of VGGT-1B."""

    embed_dim: Size = 1024
    """channels of a token; the heads read twice as many (frame and global)"""
    img_size: Size = 518
    """side in pixels of the square whose patch grid the stored positional embedding covers"""
    patch_size: Size = 14
    """side of a square patch in pixels"""
    depth: Blocks = 24
    """pairs of one frame and one global attention block"""
    num_heads: Size = 16
    """attention heads of the frame and global blocks"""
    dino_depth: Annotated[int, Within(0, 256)] = 24
    """blocks of the patch embedding"""
    dino_heads: Size = 16
    """attention heads of the patch embedding"""
    trunk_depth: Blocks = 4
    """blocks of the camera head"""
    camera_heads: Size = 16
    """attention heads of the camera head"""
    features: Annotated[int, Within(8, _MOST, multiple=8)] = 256
    """channels of the dense heads' fusion stages"""
    out_channels: Annotated[FourInts, Within(4, _MOST, multiple=4)] = (256, 512, 1024, 1024)
    """channels of a dense head's four layers before fusion"""
    intermediate_layer_idx: FourInts = (4, 11, 17, 23)
    """indices of the pairs of blocks whose output the heads read; the last pair is required"""
    num_register_tokens: Tokens = 4
    """register tokens of each view, in the patch embedding and in the aggregator alike"""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        super().__post_init__()
        # 12 n^2 weights a block of n channels; the camera head has twice the channels.
        blocks = 2 * self.depth + self.dino_depth + 4 * self.trunk_depth
        if 12 * self.embed_dim**2 * blocks > _MOST_WEIGHTS:
            raise ValueError(
                f"embed_dim={self.embed_dim} with depth={self.depth}, dino_depth="
                f"{self.dino_depth} and trunk_depth={self.trunk_depth} means more than "
                f"{_MOST_WEIGHTS:g} weights"
            )
        if self.embed_dim % (4 * self.num_heads):
            raise ValueError(
                f"embed_dim={self.embed_dim} must be a multiple of four times num_heads="
                f"{self.num_heads}: the rotary embedding splits a head's channels in four"
            )
        if self.embed_dim % self.dino_heads or 2 * self.embed_dim % self.camera_heads:
            raise ValueError(
                f"embed_dim={self.embed_dim} must be a multiple of dino_heads={self.dino_heads} "
                f"and its double of camera_heads={self.camera_heads}"
            )
        if self.img_size % self.patch_size:
            raise ValueError(f"img_size={self.img_size} must be a multiple of {self.patch_size}")
        layers = self.intermediate_layer_idx
        if list(layers) != sorted(set(layers)) or layers[0] < 0 or layers[-1] != self.depth - 1:
            raise ValueError(
                f"intermediate_layer_idx={layers} must increase and end with {self.depth - 1}, "
                "the last of the alternating blocks"
            )

    @property
    def patch_start(self) -> int:
        """Index of a view's first patch token, after the camera and register tokens."""
        return 1 + self.num_register_tokens

    @property
    def token_dim(self) -> int:
        """Channels of the tokens that the heads read."""
        return 2 * self.embed_dim

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> VGGTConfig:
        """Build from the flat keys of a ``config.json``; unknown keys are ignored."""
        known: dict[str, object] = {}
        for name, default in ((field.name, field.default) for field in fields(cls)):
            value = values.get(name, default)
            value = tuple(value) if isinstance(value, list) else value
            entries = value if isinstance(value, tuple) else ()
            if type(value) is not type(default) or any(type(entry) is not int for entry in entries):
                expected = "a list of integers" if isinstance(default, tuple) else "an integer"
                raise ValueError(f"{name} is {reprlib.repr(value)}, expected {expected}")
            known[name] = value
        return cls(**known)  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class OmegaConfig(VGGTConfig):
    """Sizes of VGGT-Omega; the defaults are those of its published 512-pixel weights."""

    img_size: Size = 512
    """longer side in pixels of its training images"""
    patch_size: Annotated[int, Within(4, _MOST, multiple=4)] = 16
    """side of a square patch in pixels; a multiple of 4, for the dense head's upsampling"""
    num_register_tokens: Tokens = 16
    """register tokens of each view in the aggregator"""
    num_storage_tokens: Tokens = 4
    """register tokens of the patch embedding; the aggregator does not read them"""
    register_blocks: Annotated[tuple[int, ...], Within(0, 255)] = (2, 6, 9, 14, 20)
    """indices of the pairs in which only camera and register tokens attend between views"""
    network: Literal["vggt-omega"] = "vggt-omega"
    """distinguishes its config.json from that of a VGGT"""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        super().__post_init__()
        if self.embed_dim % (4 * self.dino_heads):
            raise ValueError(
                f"embed_dim={self.embed_dim} must be a multiple of four times dino_heads="
                f"{self.dino_heads}: the rotary embedding splits a head's channels in four"
            )
        blocks = self.register_blocks
        if list(blocks) != sorted(set(blocks)) or (blocks and blocks[-1] >= self.depth):
            raise ValueError(f"register_blocks={blocks} must increase and be below {self.depth}")


_NETWORKS = {"vggt": VGGTConfig, OmegaConfig.network: OmegaConfig}


def config_from_dict(values: Mapping[str, object]) -> VGGTConfig:
    """Build the sizes of the network named by the key ``network``; VGGT by default."""
    network = values.get("network", "vggt")
    if not isinstance(network, str) or network not in _NETWORKS:
        known = " or ".join(_NETWORKS)
        raise ValueError(f"network is {reprlib.repr(network)}, expected {known}")
    return _NETWORKS[network].from_dict(values)
