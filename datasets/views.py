"""Containers of posed images, which readers produce and models consume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from utils.cameras import Cameras, resize_intrinsics


@dataclass(frozen=True)
class Views:
    """Images with their cameras, depths and masks."""

    images: Float[Tensor, "*batch view 3 height width"]
    """RGB in [0, 1]."""
    cameras: Cameras
    """Batch axes ``(*batch, view)``."""
    depths: Float[Tensor, "*batch view height width"]
    """z-depth in scene units; 0 where it is unknown."""
    masks: Bool[Tensor, "*batch view height width"]
    """Pixels that losses and metrics may count."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.images.shape[-2], self.images.shape[-1]

    def __getitem__(self, index: Any) -> Views:  # noqa: ANN401
        """Index the leading axes as those of a tensor."""
        images, depths, masks = self.images[index], self.depths[index], self.masks[index]
        return Views(images, self.cameras[index], depths, masks)

    def take(self, order: Sequence[int]) -> Views:
        """Select views in the given order."""
        at = (..., order, slice(None), slice(None))
        cameras = Cameras(self.cameras.intrinsics[at], self.cameras.c2w[at])
        return Views(self.images[..., order, :, :, :], cameras, self.depths[at], self.masks[at])

    def resized(self, size: tuple[int, int]) -> Views:
        """Resize to a height and width, whatever the aspect.

        Images are interpolated with antialiasing. Depths and masks are sampled at the centre of
        each new pixel, never averaged.
        """
        flat = self.images.flatten(0, -4)
        images = functional.interpolate(flat, size, mode="bilinear", antialias=True)
        scale_y, scale_x = (new / old for new, old in zip(size, self.size, strict=True))
        intrinsics = resize_intrinsics(self.cameras.intrinsics, scale_x, scale_y)
        rows, columns = (
            ((torch.arange(new, device=images.device) + 0.5) * old / new).long()
            for new, old in zip(size, self.size, strict=True)
        )
        at = (..., rows[:, None], columns)
        return Views(
            images.clamp(0, 1).reshape(*self.images.shape[:-2], *size),
            Cameras(intrinsics, self.cameras.c2w),
            self.depths[at],
            self.masks[at],
        )

    def to(self, device: torch.device | str) -> Views:
        """Move the views to a device."""
        images, depths, masks = (x.to(device) for x in (self.images, self.depths, self.masks))
        return Views(images, self.cameras.to(device), depths, masks)


@dataclass(frozen=True)
class Sample:
    """Sources and targets of one scene. Collated samples have a leading scene axis."""

    sources: Views
    targets: Views
    near_far: Float[Tensor, "*batch 2"]
    """Nearest and farthest z-depth of the scene, in scene units."""
    scene: str | tuple[str, ...]
    """Scene name; after collation one name per scene of the batch."""
    source_ids: tuple[int, ...] | tuple[tuple[int, ...], ...]
    target_ids: tuple[int, ...] | tuple[tuple[int, ...], ...]
    cameras_are_exact: bool = False
    """Whether the cameras have no error: true of procedural worlds, false of photographs."""

    def to(self, device: torch.device | str) -> Sample:
        """Move the sample to a device."""
        sources, targets = self.sources.to(device), self.targets.to(device)
        return replace(self, sources=sources, targets=targets, near_far=self.near_far.to(device))


class SampleRequest(NamedTuple):
    """What a sampler requests from a data set; equal requests give equal samples."""

    index: int
    """Item of the data set."""
    seed: int = 0
    """Seed of all random choices for this sample."""
    num_sources: int = 3


def join(parts: Sequence[Any]) -> Any:  # noqa: ANN401
    """Concatenate tensors, or dataclasses of tensors, along their first axis."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(list(parts))
    if not is_dataclass(first):
        return first
    names = vars(first)
    return type(first)(**{name: join([vars(part)[name] for part in parts]) for name in names})


def collate_samples(samples: list[Sample]) -> Sample:
    """Stack samples along a new leading scene axis."""
    return Sample(
        sources=join([sample.sources[None] for sample in samples]),
        targets=join([sample.targets[None] for sample in samples]),
        near_far=torch.stack([sample.near_far for sample in samples]),
        scene=tuple(str(sample.scene) for sample in samples),
        source_ids=tuple(tuple(sample.source_ids) for sample in samples),  # pyright: ignore[reportArgumentType]
        target_ids=tuple(tuple(sample.target_ids) for sample in samples),  # pyright: ignore[reportArgumentType]
    )
