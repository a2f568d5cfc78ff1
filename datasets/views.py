"""Containers for posed images: what readers produce and what the model consumes."""

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
    """Images with their cameras and whatever else is known of each pixel."""

    images: Float[Tensor, "*batch view 3 height width"]
    """RGB in [0, 1]."""
    cameras: Cameras
    """Batch axes ``(*batch, view)``."""
    depths: Float[Tensor, "*batch view height width"]
    """z-depth in scene units; 0 where it is unknown (everywhere, if there is no depth)."""
    masks: Bool[Tensor, "*batch view height width"]
    """Pixels that losses and metrics may count; all true where nothing says otherwise."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.images.shape[-2], self.images.shape[-1]

    def __getitem__(self, index: Any) -> Views:  # noqa: ANN401
        """Index the batch axes, and views, as a tensor would be indexed."""
        images, depths, masks = self.images[index], self.depths[index], self.masks[index]
        return Views(images, self.cameras[index], depths, masks)

    def take(self, order: Sequence[int]) -> Views:
        """Return chosen views, in the order given."""
        at = (..., order, slice(None), slice(None))
        cameras = Cameras(self.cameras.intrinsics[at], self.cameras.c2w[at])
        return Views(self.images[..., order, :, :, :], cameras, self.depths[at], self.masks[at])

    def resized(self, size: tuple[int, int]) -> Views:
        """Return the views at another height and width, whatever the aspect.

        Images are interpolated, antialiased and within [0, 1]. Depth and mask are those of the
        original pixel at the centre of each new one, never averaged.
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
        """Return the views on another device."""
        images, depths, masks = (x.to(device) for x in (self.images, self.depths, self.masks))
        return Views(images, self.cameras.to(device), depths, masks)


@dataclass(frozen=True)
class Sample:
    """One task: given the sources, predict the targets. Collated samples gain a leading axis."""

    sources: Views
    targets: Views
    near_far: Float[Tensor, "*batch 2"]
    """Nearest and farthest z-depth of the scene, in scene units."""
    scene: str | tuple[str, ...]
    """Scene name; after collation one name per scene of the batch."""
    source_ids: tuple[int, ...] | tuple[tuple[int, ...], ...]
    target_ids: tuple[int, ...] | tuple[tuple[int, ...], ...]
    cameras_are_exact: bool = False
    """Whether the cameras have no error: those of worlds have none, those of photographs do."""

    def to(self, device: torch.device | str) -> Sample:
        """Return the sample on another device."""
        moved = {
            name: getattr(self, name).to(device) for name in ("sources", "targets", "near_far")
        }
        return replace(self, **moved)


class SampleRequest(NamedTuple):
    """What a sampler asks a dataset for: the same request always yields the same sample."""

    index: int
    """Which item of the dataset."""
    seed: int = 0
    """Seeds every random choice that the dataset makes for this sample."""
    num_sources: int = 3


def join(parts: Sequence[Any]) -> Any:  # noqa: ANN401
    """Put tensors, or dataclasses of tensors, together along their first axis."""
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
