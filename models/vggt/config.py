"""Hyper-parameters of the geometry transformer; the defaults are those of VGGT-1B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class VGGTConfig:
    """Sizes of the network. Everything else (MLP ratio 4, RoPE base 100, ...) is fixed."""

    embed_dim: int = 1024
    """Channels of a token; the heads see twice as many (frame and global)."""
    img_size: int = 518
    """Side in pixels of the square whose patch grid the stored positional embedding covers."""
    patch_size: int = 14
    """Side of a square patch in pixels."""
    depth: int = 24
    """Pairs of one frame and one global attention block."""
    num_heads: int = 16
    """Attention heads of the frame and global blocks."""
    dino_depth: int = 24
    """Blocks of the patch embedding."""
    dino_heads: int = 16
    """Attention heads of the patch embedding."""
    trunk_depth: int = 4
    """Blocks of the camera head."""
    camera_heads: int = 16
    """Attention heads of the camera head."""
    features: int = 256
    """Channels of the dense heads' fusion stages."""
    out_channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    """Channels of the four layers that a dense head reads, before fusion."""
    intermediate_layer_idx: tuple[int, int, int, int] = (4, 11, 17, 23)
    """Pairs (counted from 0) whose output the heads read; the last is the network's last."""
    num_register_tokens: int = 4
    """Register tokens of each view, in the patch embedding and in the aggregator alike."""

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together."""
        self._check_sizes()
        self._check_layers()

    def _check_sizes(self) -> None:
        scalars = {field.name: getattr(self, field.name) for field in fields(self)}
        counts = ("dino_depth", "num_register_tokens")  # May be zero.
        for name, value in scalars.items():
            if isinstance(value, int) and value < (0 if name in counts else 1):
                raise ValueError(f"{name} is {value}, but must be positive")
        if self.embed_dim % (4 * self.num_heads):
            raise ValueError(
                f"embed_dim {self.embed_dim} must be a multiple of four times num_heads "
                f"{self.num_heads}: the rotary embedding splits a head's channels in four"
            )
        if self.embed_dim % self.dino_heads or 2 * self.embed_dim % self.camera_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} does not divide among dino_heads {self.dino_heads} "
                f"and camera_heads {self.camera_heads}"
            )
        if self.img_size % self.patch_size:
            raise ValueError(f"img_size {self.img_size} is no multiple of {self.patch_size}")

    def _check_layers(self) -> None:
        layers = self.intermediate_layer_idx
        if list(layers) != sorted(set(layers)) or layers[0] < 0 or layers[-1] != self.depth - 1:
            raise ValueError(
                f"intermediate_layer_idx {layers} must increase and end with {self.depth - 1}, "
                "the last of the alternating blocks"
            )
        if self.features % 8 or any(channels % 4 for channels in self.out_channels):
            raise ValueError("features must be a multiple of 8, out_channels of 4")

    @property
    def patch_start(self) -> int:
        """Index of the first patch token of a view: camera and register tokens come first."""
        return 1 + self.num_register_tokens

    @property
    def token_dim(self) -> int:
        """Channels of the tokens that the heads read."""
        return 2 * self.embed_dim

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> VGGTConfig:
        """Build from the flat keys of a ``config.json``; unknown keys are ignored.

        Raises:
            ValueError: A value has the wrong type, or the sizes do not fit together.
        """
        defaults = cls()
        known: dict[str, object] = {}
        for field in fields(cls):
            if field.name in values:
                default = getattr(defaults, field.name)
                known[field.name] = _parse(field.name, values[field.name], default)
        return cls(**known)  # pyright: ignore[reportArgumentType]


def _parse(name: str, value: object, default: object) -> object:
    if isinstance(default, tuple):
        if isinstance(value, list | tuple) and len(value) == len(default):
            if all(type(entry) is int for entry in value):
                return tuple(value)
        raise ValueError(f"{name} is {value!r}, expected a list of {len(default)} integers")
    if type(value) is not int:
        raise ValueError(f"{name} is {value!r}, expected an integer")
    return value
