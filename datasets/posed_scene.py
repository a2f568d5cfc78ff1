"""One scene with known cameras, whatever format it was read from.

Every reader returns a ``PosedScene``. Cameras, image sizes and near/far are loaded at once; pixels
are read on demand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64
from torch import Tensor

from datasets.formats.options import Size
from datasets.formats.splits import Split
from datasets.view_selection import rank_by_distance, rank_by_pose
from datasets.views import Sample, Views
from utils.cameras import Cameras, LengthUnit
from utils.errors import UserError


@dataclass(frozen=True)
class ViewPixels:
    """The decoded pixels of one view."""

    image: Float32[np.ndarray, "height width 3"]
    """RGB in [0, 1]."""
    depth: Float32[np.ndarray, "height width"]
    """z-depth in the units of the cameras; 0 where it is unknown."""
    mask: Bool[np.ndarray, "height width"]
    """Pixels that losses and metrics may count."""


ReadView = Callable[[int], ViewPixels]


@dataclass(frozen=True)
class PosedScene:
    """A scene, its views numbered from 0 in the order of their file names."""

    name: str
    view_ids: tuple[int, ...]
    view_names: tuple[str, ...]
    """Names of the image files in the scene's own files, in the order of ``view_ids``."""
    cameras: Cameras
    """Batch axes ``(view,)`` in the order of ``view_ids``; intrinsics at ``image_size``."""
    near_far: Float[Tensor, " 2"]
    """Nearest and farthest z-depth of the scene, in the units of the cameras."""
    image_size: Size
    read_view: ReadView
    """Read one view by its id, at ``image_size``. Can be pickled, for worker processes."""
    image_files: tuple[Path, ...] = ()
    view_near_far: Float[Tensor, "view 2"] | None = None
    """Depth range of each view, if the files have it; within ``near_far``."""
    neighbours: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """Source views for each view, best first, from a pair list or from common points."""
    splits: Mapping[Split, tuple[int, ...]] = field(default_factory=dict)
    """Views that the scene's files assign to training, validation and test."""
    lights: tuple[ReadView, ...] = ()
    """Readers of the same views under each light condition, that of ``read_view`` first; training
    draws one for each sample."""
    masks_for_tests_only: bool = False
    """Whether masks mark known depth rather than valid pixels: training then ignores them."""
    unit: LengthUnit = field(default_factory=LengthUnit)
    """Unit of length of the scene's files, in which users give and see depths."""
    origin: Float64[Tensor, " 3"] = field(default_factory=lambda: torch.zeros(3).double())
    """Origin of ``cameras`` in the coordinates of the files, in the unit of ``cameras``: not 0 only
    where the coordinates of the files are too large for single precision."""

    @property
    def cameras_of_files(self) -> Cameras:
        """The cameras in the coordinates of the files, in double precision."""
        c2w = self.cameras.c2w.double().clone()
        c2w[..., :3, 3] += self.origin
        return Cameras(self.cameras.intrinsics.double(), c2w)

    def load_views(self, ids: Sequence[int], read_view: ReadView | None = None) -> Views:
        """Read views in the given order; ``read_view`` is one of ``lights``."""
        cameras = self.cameras[[self._index(view) for view in ids]]
        shape = (len(ids), *self.image_size)
        images, depths = torch.empty(len(ids), 3, *self.image_size), torch.empty(shape)
        masks = torch.empty(shape, dtype=torch.bool)
        for row, view in enumerate(ids):
            pixels = (read_view or self.read_view)(view)
            images[row] = torch.from_numpy(pixels.image).permute(2, 0, 1)
            depths[row] = torch.from_numpy(pixels.depth)
            masks[row] = torch.from_numpy(pixels.mask)
            # Free the decoded view before the next one is read.
            del pixels
        return Views(images=images, cameras=cameras, depths=depths, masks=masks)

    def training_views(self, ids: Sequence[int], read_view: ReadView | None = None) -> Views:
        """Read views with the masks that training uses."""
        views = self.load_views(ids, read_view)
        if not self.masks_for_tests_only:
            return views
        return replace(views, masks=torch.ones_like(views.masks))

    def nearest(self, target: int, pool: Sequence[int], count: int) -> tuple[int, ...]:
        """Return the ``count`` views of ``pool`` nearest to the target, nearest first, without it.

        The distance is the L1 distance of the camera centres; ties are broken by view number.
        """
        others = sorted(set(pool) - {target})
        if not 1 <= count <= len(others):
            raise UserError(
                f"Scene {self.name!r}: view {target} needs {count} source views, but {len(others)} "
                f"are available; choose 1 to {len(others)}."
            )
        centers = self.cameras.centers.double()
        by_view = {view: centers[self._index(view)] for view in (target, *others)}
        return tuple(rank_by_distance(target, others, by_view)[:count])

    def ranked_neighbours(self, view: int) -> tuple[int, ...]:
        """Return all other views, best source first: the files' ranking, then by camera pose."""
        by_pose = rank_by_pose(self.cameras, self._index(view))
        known = [other for other in self.neighbours.get(view, ()) if other in self.view_ids]
        others = dict.fromkeys([*known, *(self.view_ids[index] for index in by_pose)])
        return tuple(other for other in others if other != view)

    def range_of(self, views: Sequence[int]) -> Float[Tensor, " 2"]:
        """Return the nearest and farthest z-depth over some views."""
        if self.view_near_far is None:
            return self.near_far.clone()
        ranges = self.view_near_far[[self._index(view) for view in views]]
        return torch.stack([ranges[:, 0].min(), ranges[:, 1].max()])

    def sample(self, target: int, pool: Sequence[int], num_sources: int) -> Sample:
        """Read a target view and its nearest views of ``pool`` as sources."""
        sources = self.nearest(target, pool, num_sources)
        return Sample(
            sources=self.load_views(sources),
            targets=self.load_views([target]),
            near_far=self.near_far.clone(),
            scene=self.name,
            source_ids=sources,
            target_ids=(target,),
        )

    def _index(self, view: int) -> int:
        if view not in self.view_ids:
            raise UserError(
                f"Scene {self.name!r} has no view {view}; its views are "
                f"{self.view_ids[0]} to {self.view_ids[-1]}."
            )
        return self.view_ids.index(view)
