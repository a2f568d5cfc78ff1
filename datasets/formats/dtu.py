"""The DTU reader: samples of the scans in a folder of MVSNet's layout (see data/README.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import Dataset

from datasets.formats.dtu_cameras import image_intrinsics, read_camera_file
from datasets.formats.dtu_frames import load_depth, load_image, load_mask, native_size, scaled_size
from datasets.formats.dtu_index import Scan, index_scans
from datasets.formats.dtu_layout import find_camera_files
from datasets.formats.images import Size, read_image_size
from datasets.pixel_cache import PixelCache
from datasets.posed_scene import PosedScene, ViewPixels
from datasets.sampling_rules import ItemGroup
from datasets.view_selection import (
    Split,
    choose_held_out,
    find_pair_list,
    find_scan_list,
    rank_by_distance,
    rank_neighbours,
    read_pairs,
    read_scan_list,
)
from datasets.views import Sample, SampleRequest, Views
from utils.cameras import Cameras, invert_rigid, resize_intrinsics
from utils.errors import UserError

MILLIMETRES_TO_SCENE = 1.0 / 200.0
"""Scene units per millimetre."""
FAR_MARGIN = 1.5
"""Scenes end this much farther than the files say: these mean the object, while the photographs
also show the table behind it."""


@dataclass(frozen=True)
class _Item:
    """One target view of one scan, with the views that its sources are taken from."""

    scan: Scan
    target: int
    candidates: tuple[int, ...]
    """Nearest first."""


class DTUDataset(Dataset[Sample]):
    """Samples of one split of a DTU folder; one item for each scan and target view.

    For training every view is a target. The light (the same for all views of a sample), the
    sources among the nearest neighbours and any further targets are drawn by ``request.seed``.
    For validation and test targets and sources are fixed (``choose_held_out``), under light 3.
    """

    def __init__(
        self,
        datadir: str | Path,
        split: Split,
        *,
        image_scale: float = 1.0,
        num_nearest: int = 10,
        num_targets: int = 1,
        max_sources: int = 3,
        scans: Sequence[str] | None = None,
    ) -> None:
        """Take stock of the folder and read all cameras, but no image.

        Args:
            datadir: The data folder.
            split: Chooses the list of scans and how views are chosen.
            image_scale: Images are shrunk by this factor.
            num_nearest: How many neighbours of a target its training sources are drawn among.
            num_targets: Targets of a training sample.
            max_sources: No request will ask for more sources.
            scans: Names of scans to read instead of the list of the split.

        Raises:
            UserError: The folder or a file in it is missing or malformed.
        """
        root = Path(datadir)
        self._train = split == "train"
        self.cache = PixelCache(0)
        """Keeps decoded images; whoever has memory for that replaces it."""
        self._num_targets = num_targets if self._train else 1
        self._num_nearest = max(num_nearest, max_sources + num_targets - 1)
        files = find_camera_files(root)
        cameras = {view: read_camera_file(path) for view, path in sorted(files.items())}
        names = list(scans) if scans is not None else read_scan_list(find_scan_list(root, split))
        self._scans = index_scans(root, names, files.keys(), max_sources + self._num_targets)
        self._native = _common_native_size(self._scans)
        self.image_size: Size = scaled_size(self._native, image_scale)
        self._intrinsics = {
            view: resize_intrinsics(
                image_intrinsics(camera, self._native), image_scale, image_scale
            )
            for view, camera in cameras.items()
        }
        self._c2w = {view: invert_rigid(camera.w2c) for view, camera in cameras.items()}
        nears = [camera.near for camera in cameras.values()]
        fars = [camera.far for camera in cameras.values()]
        near_far = torch.tensor([min(nears), FAR_MARGIN * max(fars)])
        self._near_far = near_far * MILLIMETRES_TO_SCENE
        pairs = read_pairs(find_pair_list(root))
        self._items = [
            item for scan in self._scans for item in self._scan_items(scan, pairs, max_sources)
        ]

    @property
    def scan_names(self) -> list[str]:
        """The scans that are there."""
        return [scan.name for scan in self._scans]

    @property
    def groups(self) -> list[ItemGroup]:
        """All items can be in one batch."""
        return [ItemGroup(0, len(self._items))]

    def __len__(self) -> int:
        """Count scans times targets."""
        return len(self._items)

    def __getitem__(self, request: SampleRequest) -> Sample:
        """Read the sample; the same request always gives the same one.

        Raises:
            UserError: A file of it is damaged.
        """
        item = self._items[request.index]
        sources, targets, light = self._draw_views(item, request)
        return Sample(
            sources=self._load_views(item.scan, sources, light),
            targets=self._load_views(item.scan, targets, light),
            near_far=self._near_far.clone(),
            scene=item.scan.name,
            source_ids=tuple(sources),
            target_ids=tuple(targets),
        )

    def load_views(self, scan_name: str, views: Sequence[int]) -> Views:
        """Read chosen views of a scan, under the light of the tests.

        Raises:
            UserError: There is no such scan or view, or a file is damaged.
        """
        scan = self._scan(scan_name)
        absent = [view for view in views if view not in scan.views]
        if absent:
            raise UserError(f"{scan.files.image_dir}: there is no view {absent[0]}.")
        return self._load_views(scan, views, scan.lights[0])

    def posed_scene(self, scan_name: str) -> PosedScene:
        """Return a scan as a scene of its own, under the light of the tests.

        Raises:
            UserError: There is no such scan.
        """
        scan = self._scan(scan_name)
        names = scan.files.images[scan.lights[0]]
        return PosedScene(
            name=scan.name,
            view_ids=scan.views,
            view_names=tuple(names[view].name for view in scan.views),
            cameras=self._cameras(scan.views),
            near_far=self._near_far.clone(),
            image_size=self.image_size,
            read_view=partial(self._read_view, scan),
        )

    def _scan(self, name: str) -> Scan:
        for scan in self._scans:
            if scan.name == name:
                return scan
        raise UserError(f"No scan {name!r} here; there are {', '.join(self.scan_names)}.")

    def _read_view(self, scan: Scan, view: int) -> ViewPixels:
        return self._read_pixels(scan, view, scan.lights[0])

    def _scan_items(self, scan: Scan, pairs: dict[int, list[int]], max_sources: int) -> list[_Item]:
        centers = {view: self._c2w[view][:3, 3] for view in scan.views}
        stacked = torch.stack(list(centers.values()))
        if self._train:
            neighbours = rank_neighbours(scan.views, stacked, pairs)
            nearest = {
                view: tuple(ranked[: self._num_nearest]) for view, ranked in neighbours.items()
            }
            return [_Item(scan, view, nearest[view]) for view in scan.views]
        targets, pool = choose_held_out(scan.views, max_sources)
        return [
            _Item(scan, target, tuple(rank_by_distance(target, pool, centers)))
            for target in targets
        ]

    def _draw_views(self, item: _Item, request: SampleRequest) -> tuple[list[int], list[int], int]:
        """Return sources, targets and light."""
        num_sources, others = request.num_sources, self._num_targets - 1
        if num_sources + others > len(item.candidates):
            raise UserError(
                f"{item.scan.files.image_dir}: view {item.target} has {len(item.candidates)} "
                f"neighbours, but {num_sources} sources and {others} further targets are wanted."
            )
        if not self._train:
            return list(item.candidates[:num_sources]), [item.target], item.scan.lights[0]
        generator = torch.Generator().manual_seed(request.seed)
        light = int(torch.randint(len(item.scan.lights), (), generator=generator))
        order = torch.randperm(len(item.candidates), generator=generator).tolist()
        drawn = [item.candidates[place] for place in order[: num_sources + others]]
        return drawn[:num_sources], [item.target, *drawn[num_sources:]], item.scan.lights[light]

    def _load_views(self, scan: Scan, views: Sequence[int], light: int) -> Views:
        pixels = [
            self.cache.get((scan.name, light, view), partial(self._read_pixels, scan, view, light))
            for view in views
        ]
        images = torch.from_numpy(np.stack([view.image for view in pixels]))
        return Views(
            images=images.permute(0, 3, 1, 2).contiguous(),
            cameras=self._cameras(views),
            depths=torch.from_numpy(np.stack([view.depth for view in pixels])),
            masks=torch.from_numpy(np.stack([view.mask for view in pixels])),
        )

    def _read_pixels(self, scan: Scan, view: int, light: int) -> ViewPixels:
        files, native, size = scan.files, self._native, self.image_size
        image = load_image(files.images[light][view], native, size)
        depth = np.zeros(size, np.float32)
        if view in files.depths:
            depth = load_depth(files.depths[view], native, size)
        mask = self._mask(scan, view, depth)
        return ViewPixels(image, depth * np.float32(MILLIMETRES_TO_SCENE), mask)

    def _mask(
        self, scan: Scan, view: int, depth: Float[np.ndarray, "height width"]
    ) -> Bool[np.ndarray, "height width"]:
        """Count every pixel for training; for evaluation those that MVSNeRF's protocol counts.

        That is where there is true depth, if there is any. A model that never had to render the
        black background would be free to fill it with anything.
        """
        if self._train:
            return np.ones(self.image_size, np.bool_)
        if view in scan.files.masks:
            return load_mask(scan.files.masks[view], self._native, self.image_size)
        return depth > 0 if view in scan.files.depths else np.ones(self.image_size, np.bool_)

    def _cameras(self, views: Sequence[int]) -> Cameras:
        intrinsics: Float[Tensor, "view 3 3"] = torch.stack([self._intrinsics[v] for v in views])
        c2w: Float[Tensor, "view 4 4"] = torch.stack([self._c2w[v] for v in views])
        return Cameras(intrinsics.float(), c2w.float()).scaled_world(MILLIMETRES_TO_SCENE)


def _common_native_size(scans: Sequence[Scan]) -> Size:
    """Read one image header of every scan; all must agree.

    Raises:
        UserError: Two scans have images of different sizes, or a header cannot be read.
    """
    first_images = [scan.files.images[scan.lights[0]][scan.views[0]] for scan in scans]
    sizes = [native_size(read_image_size(path)) for path in first_images]
    for path, size in zip(first_images, sizes, strict=True):
        if size != sizes[0]:
            raise UserError(
                f"{path}: the image is {size[1]}x{size[0]}, but {first_images[0]} is "
                f"{sizes[0][1]}x{sizes[0][0]}. All scans must have images of one size."
            )
    return sizes[0]
