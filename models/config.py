"""Settings of the model and of its backbone; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from utils.settings import (
    MAX_CHANNELS,
    Channels,
    Layers,
    Planes,
    Settings,
    Stages,
    Within,
)

FEATURE_GROUP = 4
"""Channels of a feature map that are normalised together."""
NORM_GROUPS = 8
"""Groups of the pyramid's group norms."""

Widths = Annotated[tuple[int, ...], Stages, Within(8, MAX_CHANNELS, multiple=8)]
DecoderWidths = Annotated[tuple[int, ...], Stages, Within(1, MAX_CHANNELS)]
FeatureChannels = Annotated[int, Within(FEATURE_GROUP, MAX_CHANNELS, multiple=FEATURE_GROUP)]


@dataclass(frozen=True)
class BackboneConfig(Settings):
    """The frozen backbone."""

    vggt_path: str = "ckpts/VGGT-1B"
    """folder with config.json and the weights of a VGGT or VGGT-Omega"""
    backbone_size: Annotated[int, Within(28, 8192)] = 518
    """longer side, in pixels, of the backbone's input images"""
    random_backbone: bool = False
    """use the sizes in vggt_path with random weights: for tests, its output is meaningless"""
    backbone: Literal["vggt", "none"] = "vggt"
    """none: use the images alone, without tokens or depth of a VGGT (an ablation)"""
    tuned_blocks: Annotated[int, Within(0, 256)] = 0
    """last pairs of attention blocks that get trained low-rank adapters (LoRA); 0: none"""
    tuned_rank: Channels = 8
    """rank of the adapters"""


@dataclass(frozen=True)
class FeaturePyramidConfig(Settings):
    """Size of the trainable feature pyramid."""

    feature_channels: FeatureChannels = 32
    """channels of the feature maps for ray samples and the second level; a multiple of 4"""
    coarse_channels: FeatureChannels = 32
    """channels of the feature maps for the first level of the cost volume; a multiple of 4"""
    pyramid_width: Annotated[
        int, Within(2 * NORM_GROUPS, MAX_CHANNELS, multiple=2 * NORM_GROUPS)
    ] = 64
    """channels inside the pyramid; a multiple of 16"""


@dataclass(frozen=True)
class CostVolumeConfig(Settings):
    """Size of the cost volumes in front of a target camera."""

    volume_channels: Annotated[int, Within(0, MAX_CHANNELS)] = 8
    """feature channels that each level passes on to the next stage"""
    volume_widths: Widths = (16, 24, 32, 32, 24)
    """channels of the 3D U-Net at full, half, quarter, ... size; multiples of 8"""
    volume_groups: Channels = 8
    """channel groups of the first level's cross-view similarity; divides coarse_channels"""
    fine_planes: Planes = 8
    """bins of the second level, placed by the weights of the first"""
    fine_widths: Widths = (16, 24, 24)
    """channels of the second level's 3D U-Net, as volume_widths"""


@dataclass(frozen=True)
class RadianceFieldConfig(Settings):
    """Size of the radiance field."""

    field_width: Channels = 64
    """channels of hidden states per point"""
    view_width: Channels = 32
    """channels of hidden states per point and view"""
    similarity_groups: Channels = 8
    """channel groups of the cross-view similarity; divides feature_channels"""
    ray_layers: Layers = 1
    """attention layers along each ray"""
    ray_heads: Channels = 2
    """heads of the attention along the ray; divides field_width"""
    composited_channels: Channels = 16
    """channels of the composited feature, the decoder's input beside the colour"""

    def __post_init__(self) -> None:
        """Check that the heads divide the channels."""
        super().__post_init__()
        if self.field_width % self.ray_heads:
            raise ValueError(
                f"field_width={self.field_width} is not a multiple of ray_heads={self.ray_heads}"
            )


@dataclass(frozen=True)
class DecoderConfig(Settings):
    """Size of the 2D U-Net over composited images."""

    decoder_widths: DecoderWidths = (48, 64, 96, 64, 48)
    """channels of the decoder at the size of one pixel per bundle, half, quarter, ... of it"""


@dataclass(frozen=True)
class RenderConfig(Settings):
    """How rays are sampled and composited."""

    N_planes: Planes = 48
    """depth planes of the first level of the cost volume"""
    N_samples: Planes = 3
    """samples per ray, drawn by the weights of the second level of the cost volume"""
    sampling_floor: Annotated[float, Within(0, 1, above=True)] = 0.15
    """share of the sampling density that is uniform, independent of the weights"""
    sampling_spread: bool = True
    """dilate the weights by one bin before sampling, against errors of one bin in training"""
    bundle_size: Annotated[int, Within(1, 64)] = 2
    """side, in pixels, of the square bundles of pixels that share a ray"""
    lindisp: bool = False
    """space the depth planes evenly in inverse depth (for unbounded scenes)"""
    white_bkgd: bool = False
    """white instead of black background"""
    pad: Annotated[float, Within(0, 8192)] = 4.0
    """pixels outside a source image up to which points still read the image's border"""

    @property
    def background(self) -> float:
        """Grey value of the background."""
        return 1.0 if self.white_bkgd else 0.0


@dataclass(frozen=True)
class ModelConfig:
    """The trainable part of the model, without the backbone."""

    pyramid: FeaturePyramidConfig = field(default_factory=FeaturePyramidConfig)
    volume: CostVolumeConfig = field(default_factory=CostVolumeConfig)
    radiance_field: RadianceFieldConfig = field(default_factory=RadianceFieldConfig)
    rendering: RenderConfig = field(default_factory=RenderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)

    def __post_init__(self) -> None:
        """Check that groups divide channels."""
        for channels, groups in (
            ("feature_channels", "similarity_groups"),
            ("coarse_channels", "volume_groups"),
        ):
            values = {**vars(self.pyramid), **vars(self.radiance_field), **vars(self.volume)}
            if values[channels] % values[groups]:
                raise ValueError(
                    f"{channels}={values[channels]} is not a multiple of {groups}={values[groups]}"
                )

    def ray_bytes(self, views: int) -> int:
        """Estimate the memory per rendered pixel: twice the measured use, as a safety margin.

        In single precision, without gradients, with ``views`` source views.
        """
        view_channels = 3 * (self.pyramid.feature_channels + self.radiance_field.view_width)
        floats = 16 * self.radiance_field.field_width + views * view_channels
        return 2 * 4 * self.rendering.N_samples * floats // self.rendering.bundle_size**2
