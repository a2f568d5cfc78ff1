"""Checking the cameras of one scene against its images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from apps.inspection.conventions import MatchedPair, Verdict, fit_pair, judge, match_pair
from datasets.formats.format_table import PoseConvention
from datasets.photo_folder import spread_evenly
from datasets.posed_scene import PosedScene
from utils.errors import UserError

_FIELD_OF_VIEW = (5.0, 150.0)
_MAX_OFF_CENTER = 0.1
_MAX_STRETCH = 1.25
_MIN_INSIDE = 0.8
_MIN_SHARE = 0.02
"""Of the inverse depths between near and far, in which planes lie evenly."""
_MIN_MATCHES = 30
_READ_PIXELS = 100_000_000
"""Of all views together: about three seconds."""
_ONE_PLACE = (
    "all cameras stand in one place: without parallax there is no depth to learn. If they moved, "
    "the file lost where they were: export it again, or let the cameras be estimated: python -m "
    "apps.estimate_cameras --photos FOLDER"
)


@dataclass(frozen=True)
class SceneChecks:
    """What was found out about a scene."""

    facts: list[str]
    warnings: list[str]
    problems: list[str]
    """Each with what is wrong and how to mend it; with none the scene can be trained on."""
    pair: tuple[int, int] | None
    """The pair of views with the most matches."""


def check_scene(scene: PosedScene, num_pairs: int, written: PoseConvention) -> SceneChecks:
    """Check intrinsics, poses, and both against matched features of some pairs of views.

    ``written`` is how the format writes poses.
    """
    facts, warnings = _check_intrinsics(scene)
    facts.append("poses: finite, right-handed, orthonormal (checked on reading)")
    if _in_one_place(scene):
        return SceneChecks(facts, warnings, [_ONE_PLACE], None)
    warnings += _check_places(scene)
    found = {}
    for pair in choose_pairs(scene, num_pairs):
        views = scene.load_views(pair)
        pixels = match_pair(views.images)
        if pixels.shape[1]:
            places = [scene.view_ids.index(view) for view in pair]
            found[pair] = MatchedPair(pixels, scene.cameras_of_files[places])
    counts = {pair: matched.pixels.shape[1] for pair, matched in found.items()}
    total = sum(counts.values())
    if total < _MIN_MATCHES:
        warnings.append(
            f"only {total} features match between neighbouring images: cameras could not be "
            "checked. Are the images textureless, or far apart?"
        )
        return SceneChecks(facts, warnings, [], None)
    pairs = list(found.values())
    verdict = judge(pairs, scene.image_size, written)
    facts.append(
        f"matches: {total} in {len(found)} pairs; median distance to epipolar lines "
        f"{verdict.epipolar:.2f} pixels; {verdict.in_front:.0%} of points in front of the cameras"
    )
    problems = _camera_problems(verdict)
    depths = _depths(pairs) * scene.unit.factor
    if not problems and len(depths):
        fact, problems = _check_range(depths, scene)
        facts.append(fact)
    best = max(counts, key=lambda pair: counts[pair])
    return SceneChecks(facts, warnings, problems, best)


def damaged_views(scene: PosedScene) -> list[str]:
    """Read the views, or some of many or large ones; say of each that cannot be read why."""
    height, width = scene.image_size
    told = []
    for view in spread_evenly(scene.view_ids, max(1, _READ_PIXELS // (height * width))):
        try:
            scene.read_view(view)
        except UserError as error:
            told.append(str(error))
    return told


def choose_pairs(scene: PosedScene, count: int) -> list[tuple[int, int]]:
    """Choose neighbours in two ways, since poses that are wrong name wrong neighbours.

    Half of the pairs are the best neighbours by the files or by pose, half follow each other in
    the order of file names.
    """
    ids = scene.view_ids
    pairs = []
    for target in spread_evenly(ids, max(1, count // 2)):
        pairs.append((target, scene.ranked_neighbours(target)[0]))
        place = ids.index(target)
        pairs.append((target, ids[place + 1] if place + 1 < len(ids) else ids[place - 1]))
    return list(dict.fromkeys(pairs))


def _check_intrinsics(scene: PosedScene) -> tuple[list[str], list[str]]:
    height, width = scene.image_size
    intrinsics = scene.cameras.intrinsics.double()
    focal_x, focal_y = intrinsics[:, 0, 0], intrinsics[:, 1, 1]
    angles = torch.rad2deg(2 * torch.atan(width / (2 * focal_x)))
    facts = [
        f"intrinsics: focal length {focal_x.median().item():.4g} pixels, horizontal field of view "
        f"{angles.min().item():.0f} to {angles.max().item():.0f} degrees"
    ]
    warnings = []
    if angles.min() < _FIELD_OF_VIEW[0] or angles.max() > _FIELD_OF_VIEW[1]:
        warnings.append("the field of view is unusual: does the focal length fit the image size?")
    stretch = (focal_x / focal_y).median().item()
    if not 1 / _MAX_STRETCH < stretch < _MAX_STRETCH:
        warnings.append(
            f"fl_x is {stretch:.2f} times fl_y: were the images resized with another aspect, or "
            "width and height swapped?"
        )
    centers = intrinsics[:, :2, 2] / intrinsics.new_tensor([width, height]) - 0.5
    if centers.abs().max() > _MAX_OFF_CENTER:
        offset = centers[centers.abs().amax(1).argmax()]
        warnings.append(
            f"a principal point lies {offset[0]:+.0%} of the width and {offset[1]:+.0%} of the "
            "height from the centre: were images cropped, or cx and cy swapped?"
        )
    return facts, warnings


def _in_one_place(scene: PosedScene) -> bool:
    centers = scene.cameras.centers.double()
    spread = (centers - centers.mean(0)).norm(dim=-1).max().item()
    return len(centers) > 1 and spread <= 1e-9 * max(1.0, centers.abs().max().item())


def _check_places(scene: PosedScene) -> list[str]:
    centers = scene.cameras.centers.double()
    spread = (centers - centers.mean(0)).norm(dim=-1).max().item()
    gaps = torch.cdist(centers, centers).fill_diagonal_(torch.inf)
    same = (gaps < 1e-9 * max(spread, 1e-12)).any(1).sum().item()
    return [f"{same} views share their place with another: duplicate images?"] if same else []


def _camera_problems(verdict: Verdict) -> list[str]:
    if verdict.fine:
        return []
    wrong = (
        f"the cameras do not explain the images: matches lie {verdict.epipolar:.1f} pixels from "
        f"their epipolar lines (median), {verdict.in_front:.0%} of the points are in front."
    )
    if verdict.repaired is None:
        return [
            f"{wrong} No usual mix-up of conventions explains it. Do images and cameras belong "
            "together, in this order? Is lens distortion missing from the file?"
        ]
    return [
        f"{wrong} They would with {verdict.repaired_epipolar:.2f} pixels if the file had "
        f"{verdict.repaired.name}. To mend it: {verdict.repaired.remedy}."
    ]


def _depths(pairs: Sequence[MatchedPair]) -> Float[Tensor, " point"]:
    """Return the depths of points whose rays meet at an angle and near enough."""
    found = []
    for pair in pairs:
        fit = fit_pair(pair.pixels, pair.cameras)
        kept = fit.reliable & (fit.depths > 0).all(0) & (fit.epipolar < 2)
        found.append(fit.depths[:, kept].flatten())
    return torch.cat(found)


def _check_range(depths: Float[Tensor, " point"], scene: PosedScene) -> tuple[str, list[str]]:
    """Compare near and far with triangulated depths, all in the unit of the files."""
    near, far = (scene.near_far * scene.unit.factor).tolist()
    inside = ((depths >= near) & (depths <= far)).float().mean().item()
    low, high = depths.quantile(0.01).item(), depths.quantile(0.99).item()
    fact = (
        f"range: near {near:.4g}, far {far:.4g}; triangulated points lie from {low:.4g} to "
        f"{high:.4g}, {inside:.0%} of them in the range"
    )
    share = (1 / low - 1 / high) / (1 / near - 1 / far)
    if inside >= _MIN_INSIDE and share >= _MIN_SHARE:
        return fact, []
    wrong = (
        f"leave out {1 - inside:.0%} of what the images show"
        if inside < _MIN_INSIDE
        else f"leave {share:.2%} of the inverse depths to what the images show"
    )
    digits = 2 - math.floor(math.log10(max(low, 1e-12)))
    return fact, [
        f"near {near:.4g} and far {far:.4g} {wrong}: it lies from {low:.4g} to {high:.4g}. To mend "
        f"it: give near and far in the file, or --near_far {round(0.8 * low, digits):g} "
        f"{round(1.2 * high, digits):g}."
    ]
