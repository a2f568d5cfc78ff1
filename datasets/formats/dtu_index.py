"""Taking stock of a DTU folder: what is there is used, what is missing is counted and said."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets.formats.dtu_layout import LAYOUT_HELP, ScanFiles, find_scan
from utils.errors import UserError

_LOG = logging.getLogger(__name__)

TEST_LIGHT = 3
"""The one of DTU's seven lights under which every published figure is measured."""
_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Scan:
    """A scan that can be used."""

    files: ScanFiles
    views: tuple[int, ...]
    """Views that have a camera and, under every light of ``lights``, an image."""
    lights: tuple[int, ...]
    """The light of validation and test first."""

    @property
    def name(self) -> str:
        """Name of the scan."""
        return self.files.name


def index_scans(
    root: Path, names: Sequence[str], camera_views: Collection[int], min_views: int
) -> list[Scan]:
    """Find the scans of a list, and report what is missing with counts.

    Args:
        root: The data folder.
        names: Scans to look for.
        camera_views: Views that have a camera.
        min_views: Scans with fewer views are left out.

    Raises:
        UserError: No scan can be used.
    """
    found = [files for name in names if (files := find_scan(root, name)) is not None]
    if not found:
        raise UserError(
            f"{root}: has cameras, but images of none of the {len(names)} scans of the list "
            f"({_shortened(names)}): no Rectified/{names[0]}_train/rect_001_3_r5000.png and no "
            f"Rectified/{names[0]}/. Other scans can be named in lists/{{train,val,test}}.txt. "
            f"{LAYOUT_HELP}"
        )
    scans = [_index_views(files, camera_views) for files in found]
    usable = [scan for scan in scans if len(scan.views) >= min_views]
    if not usable:
        first = scans[0]
        raise UserError(
            f"{first.files.image_dir}: {len(first.views)} views have image and camera, "
            f"{min_views} are needed; the same or worse in all {len(scans)} scans found. "
            f"{_first_gap(first, camera_views)}"
        )
    _report_scans(names, scans, min_views)
    _report_views(usable, camera_views)
    return usable


def _index_views(files: ScanFiles, camera_views: Collection[int]) -> Scan:
    """Choose the views by the light of the tests; other lights count if they have all of these."""
    views_of = {light: set(views) & set(camera_views) for light, views in files.images.items()}
    most_complete = max(sorted(views_of), key=lambda light: len(views_of[light]))
    reference = TEST_LIGHT if views_of.get(TEST_LIGHT) else most_complete
    views = views_of[reference]
    others = [
        light for light in sorted(views_of) if light != reference and views_of[light] >= views
    ]
    return Scan(files, tuple(sorted(views)), (reference, *others))


def _report_scans(names: Sequence[str], scans: Sequence[Scan], min_views: int) -> None:
    found = {scan.name for scan in scans}
    missing = [name for name in names if name not in found]
    if missing:
        _LOG.warning(
            "%d of %d scans found; missing: %s", len(found), len(names), _shortened(missing)
        )
    short = [scan.name for scan in scans if len(scan.views) < min_views]
    if short:
        _LOG.warning(
            "%d scans have fewer than %d views and are left out: %s",
            *(len(short), min_views, _shortened(short)),
        )


def _report_views(scans: Sequence[Scan], camera_views: Collection[int]) -> None:
    most = max(len(scan.views) for scan in scans)
    partial = [scan for scan in scans if len(scan.views) < most]
    if partial:
        gaps = [f"{scan.name} ({len(scan.views)})" for scan in partial]
        _LOG.warning(
            "%d of %d scans have fewer than %d views: %s",
            *(len(partial), len(scans), most, _shortened(gaps)),
        )
    without_camera = [scan.name for scan in scans if _views_without_camera(scan, camera_views)]
    if without_camera:
        _LOG.warning(
            "%d scans have images without a camera file, which are not used: %s",
            *(len(without_camera), _shortened(without_camera)),
        )
    partly_lit = [scan.name for scan in scans if len(scan.lights) < len(scan.files.images)]
    if partly_lit:
        _LOG.warning(
            "%d scans have lights that lack some views, which are not used: %s",
            *(len(partly_lit), _shortened(partly_lit)),
        )
    total = sum(len(scan.views) for scan in scans)
    with_depth = sum(len(set(scan.views) & set(scan.files.depths)) for scan in scans)
    _LOG.info("%d scans, %d views, %d of them with depth", len(scans), total, with_depth)


def _views_without_camera(scan: Scan, camera_views: Collection[int]) -> list[int]:
    images = scan.files.images[scan.lights[0]]
    return [view for view in sorted(images) if view not in camera_views]


def _first_gap(scan: Scan, camera_views: Collection[int]) -> str:
    """Name one file whose absence explains a lack of views."""
    lost = _views_without_camera(scan, camera_views)
    if lost:
        return f"For example, Cameras/ has no {lost[0]:08d}_cam.txt."
    absent = [view for view in sorted(camera_views) if view not in scan.views]
    if absent:
        name = f"rect_{absent[0] + 1:03d}_{scan.lights[0]}_r5000.png"
        return f"For example, there is no {name}."
    return "Ask for fewer sources, or add views."


def _shortened(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMES_SHOWN])
    rest = len(names) - _NAMES_SHOWN
    return f"{shown}, ... (+{rest})" if rest > 0 else shown
