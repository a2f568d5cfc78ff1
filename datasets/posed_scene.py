"""One scene with known cameras, whatever format it was read from.

Readers return a ``PosedScene``; training, evaluation and fine-tuning use nothing else of a data
set. Cameras, image sizes and near/far are known at once, pixels are read when asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int
from scipy.sparse import csr_array
from torch import Tensor

from datasets.formats.options import Size
from datasets.formats.splits import Split
from datasets.views import Sample, Views
from utils.cameras import Cameras, LengthUnit
from utils.errors import UserError

Neighbours = Mapping[int, Sequence[int]]
"""For each view the others, most useful first."""
_BEST_ANGLE, _NARROW, _WIDE = 5.0, 1.0, 10.0
"""Degrees: the triangulation angle that counts fully, and how fast smaller and larger ones fade."""


@dataclass(frozen=True)
class ViewPixels:
    """What is read of one view."""

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
    """The image files as the scene itself names them, in the order of ``view_ids``."""
    cameras: Cameras
    """Batch axes ``(view,)`` in the order of ``view_ids``; intrinsics at ``image_size``."""
    near_far: Float[Tensor, " 2"]
    """Nearest and farthest z-depth of the scene, in the units of the cameras."""
    image_size: Size
    """Height and width of every view."""
    read_view: ReadView
    """Read one view by its id, at ``image_size``. Can be pickled, for worker processes."""
    image_files: tuple[Path, ...] = ()
    """What the images of all views are read from."""
    view_near_far: Float[Tensor, "view 2"] | None = None
    """The range that each view sees, where the files tell; within ``near_far``."""
    neighbours: Neighbours = field(default_factory=dict)
    """Others that go with a view, most useful first: of a pair list, or by common points."""
    splits: Mapping[Split, tuple[int, ...]] = field(default_factory=dict)
    """Views that the files themselves set apart for training, validation and test."""
    lights: tuple[ReadView, ...] = ()
    """Readers of the same views under each light that they were photographed in, that of
    ``read_view`` first; training draws one for each sample."""
    masks_for_tests_only: bool = False
    """Masks say where depth is known, not which pixels are good: training counts all of them."""
    unit: LengthUnit = field(default_factory=LengthUnit)
    """The unit of the scene's files, in which users see and give depths."""
    origin: Float64[Tensor, " 3"] = field(default_factory=lambda: torch.zeros(3).double())
    """Where the origin of the cameras lies in the coordinates of the files, in the cameras' unit:
    0 unless the cameras stand too far from the files' own for single precision."""

    @property
    def cameras_of_files(self) -> Cameras:
        """The cameras in the coordinates of the files, in double precision."""
        c2w = self.cameras.c2w.double().clone()
        c2w[..., :3, 3] += self.origin
        return Cameras(self.cameras.intrinsics.double(), c2w)

    def load_views(self, ids: Sequence[int], read_view: ReadView | None = None) -> Views:
        """Read chosen views, in the order given; ``read_view`` is one of ``lights``."""
        places = [self._place(view) for view in ids]
        shape = (len(places), *self.image_size)
        images, depths = torch.empty(len(places), 3, *self.image_size), torch.empty(shape)
        masks = torch.empty(shape, dtype=torch.bool)

        def read(number: int, view: int) -> None:
            pixels = (read_view or self.read_view)(view)
            images[number] = torch.from_numpy(pixels.image).permute(2, 0, 1)
            depths[number] = torch.from_numpy(pixels.depth)
            masks[number] = torch.from_numpy(pixels.mask)

        # One after the other: pixels as they are read take as much memory again.
        for number, view in enumerate(ids):
            read(number, view)
        return Views(images=images, cameras=self.cameras[places], depths=depths, masks=masks)

    def training_views(self, ids: Sequence[int], read_view: ReadView | None = None) -> Views:
        """Read chosen views with masks that say what training counts."""
        views = self.load_views(ids, read_view)
        if not self.masks_for_tests_only:
            return views
        return replace(views, masks=torch.ones_like(views.masks))

    def nearest(self, target: int, pool: Sequence[int], count: int) -> tuple[int, ...]:
        """Return the views of ``pool`` nearest to the target, nearest first, never itself.

        The distance is the L1 distance of camera centres; of equally near views the first counts.
        """
        others = sorted(set(pool) - {target})
        if not 1 <= count <= len(others):
            raise UserError(
                f"Scene {self.name!r}: {count} source views are wanted for view {target}, but "
                f"there are {len(others)} to choose from; ask for 1 to {len(others)}."
            )
        centers = self.cameras.centers.double()
        by_view = {view: centers[self._place(view)] for view in (target, *others)}
        return tuple(rank_by_distance(target, others, by_view)[:count])

    def ranked_neighbours(self, view: int) -> tuple[int, ...]:
        """Return all other views, most useful first: as the files say, then by camera pose."""
        by_pose = rank_by_pose(self.cameras, self._place(view))
        known = [other for other in self.neighbours.get(view, ()) if other in self.view_ids]
        others = dict.fromkeys([*known, *(self.view_ids[place] for place in by_pose)])
        return tuple(other for other in others if other != view)

    def range_of(self, views: Sequence[int]) -> Float[Tensor, " 2"]:
        """Return the nearest and farthest z-depth that chosen views see."""
        if self.view_near_far is None:
            return self.near_far.clone()
        ranges = self.view_near_far[[self._place(view) for view in views]]
        return torch.stack([ranges[:, 0].min(), ranges[:, 1].max()])

    def sample(self, target: int, pool: Sequence[int], num_sources: int) -> Sample:
        """Read one view to be predicted and the views of ``pool`` nearest to it."""
        sources = self.nearest(target, pool, num_sources)
        return Sample(
            sources=self.load_views(sources),
            targets=self.load_views([target]),
            near_far=self.near_far.clone(),
            scene=self.name,
            source_ids=sources,
            target_ids=(target,),
        )

    def _place(self, view: int) -> int:
        if view not in self.view_ids:
            raise UserError(
                f"Scene {self.name!r} has no view {view}; its views are "
                f"{self.view_ids[0]} to {self.view_ids[-1]}."
            )
        return self.view_ids.index(view)


def rank_by_distance(
    target: int, views: Sequence[int], centers: Mapping[int, Float[Tensor, " 3"]]
) -> list[int]:
    """Sort views by the L1 distance of their camera centres to the target's, leaving it out."""
    others = [view for view in views if view != target]
    return sorted(others, key=lambda view: (centers[view] - centers[target]).abs().sum().item())


def rank_by_pose(cameras: Cameras, target: int) -> list[int]:
    """Sort all other cameras by how near they stand to one and how alike they look.

    The cost is the distance of the centres, in units of their spread, plus the angle between the
    optical axes in radians.
    """
    centers, axes = cameras.centers.double(), cameras.c2w[:, :3, 2].double()
    spread = (centers - centers.mean(0)).norm(dim=-1).mean().clamp_min(1e-12)
    distances = (centers - centers[target]).norm(dim=-1) / spread
    angles = (axes @ axes[target]).clamp(-1, 1).acos()
    order = torch.argsort(distances + angles, stable=True).tolist()
    return [place for place in order if place != target]


def rank_by_common_points(
    positions: Float64[np.ndarray, "point 3"],
    seen: Sequence[Int[np.ndarray, " _"]],
    centers: Float64[np.ndarray, "view 3"],
) -> dict[int, list[int]]:
    """Rank for each view those that see points in common with it, best first.

    Every common point counts by the angle under which the two views see it, as in MVSNet's view
    selection (Yao et al., ECCV 2018, supplement): fully at 5 degrees, less below and above.
    ``seen`` holds for each view the points that it saw.
    """
    viewers = np.repeat(np.arange(len(seen)), [len(points) for points in seen])
    points = np.concatenate([np.zeros(0, np.int64), *seen])
    shape = len(positions), len(seen)
    sees = csr_array((np.ones(len(points), np.bool_), (points, viewers)), shape=shape)
    ranked = {}
    for view, own in enumerate(seen):
        rows, others = sees[own].tocoo().coords
        which = own[rows]
        scores = np.bincount(
            others,
            _angle_weights(positions[which], centers[view], centers[others]),
            minlength=len(seen),
        )
        scores[view] = 0.0
        order = np.argsort(-scores, kind="stable").tolist()
        ranked[view] = [other for other in order if scores[other] > 0]
    return ranked


def _angle_weights(
    points: Float64[np.ndarray, "point 3"],
    center: Float64[np.ndarray, " 3"],
    others: Float64[np.ndarray, "point 3"],
) -> Float64[np.ndarray, " point"]:
    first, second = center - points, others - points
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = (first * second).sum(1) / np.maximum(lengths, 1e-300)
    angles = np.rad2deg(np.arccos(cosines.clip(-1, 1)))
    widths = np.where(angles < _BEST_ANGLE, _NARROW, _WIDE)
    return np.exp(-((angles - _BEST_ANGLE) ** 2) / (2 * widths**2))
