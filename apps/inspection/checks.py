"""Checks of a scene's cameras against its images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from apps.inspection.conventions import (
    CameraCheck,
    MatchedPair,
    check_cameras,
    fit_pair,
    match_pair,
)
from datasets.formats.format_table import PoseConvention
from datasets.posed_scene import PosedScene
from datasets.view_selection import spread_evenly
from utils.errors import UserError

_FIELD_OF_VIEW = (5.0, 150.0)
_MAX_CENTER_OFFSET = 0.1
_MAX_ASPECT = 1.25
_MIN_INSIDE = 0.8
_MIN_SHARE = 0.02
"""Smallest share of the inverse depths between near and far that the scene takes up."""
_MIN_MATCHES = 30
_MAX_READ_PIXELS = 100_000_000
"""Pixels read of all views of a scene together: about three seconds."""
_NO_BASELINE = (
    "all cameras are at the same position: without parallax there is no depth to learn. If the "
    "camera moved, the positions are missing in the file: export it again, or estimate the "
    "cameras: python -m apps.estimate_cameras --photos FOLDER"
)


@dataclass(frozen=True)
class SceneChecks:
    """Results of all checks of a scene."""

    facts: list[str]
    warnings: list[str]
    problems: list[str]
    """Errors with their remedies; a scene without problems can be trained on."""
    pair: tuple[int, int] | None
    """The pair of views with the most matches."""


def check_scene(scene: PosedScene, num_pairs: int, written: PoseConvention) -> SceneChecks:
    """Check intrinsics and poses, also against matched features of ``num_pairs`` pairs of views.

    ``written`` is the convention in which the format stores poses.
    """
    facts, warnings = _check_intrinsics(scene)
    facts.append("poses: finite, right-handed, orthonormal (checked on reading)")
    centers = scene.cameras.centers.double()
    spread = (centers - centers.mean(0)).norm(dim=-1).max().item()
    if len(centers) > 1 and spread <= 1e-9 * max(1.0, centers.abs().max().item()):
        return SceneChecks(facts, warnings, [_NO_BASELINE], None)
    distances = torch.cdist(centers, centers).fill_diagonal_(torch.inf)
    if same := (distances < 1e-9 * max(spread, 1e-12)).any(1).sum().item():
        warnings.append(f"{same} views share their position with another: duplicate images?")
    matches = _match_pairs(scene, num_pairs)
    counts = {pair: matched.pixels.shape[1] for pair, matched in matches.items()}
    total = sum(counts.values())
    if total < _MIN_MATCHES:
        warnings.append(
            f"only {total} features match between neighbouring images: cameras could not be "
            "checked. Are the images textureless, or far apart?"
        )
        return SceneChecks(facts, warnings, [], None)
    pairs = list(matches.values())
    check = check_cameras(pairs, scene.image_size, written)
    facts.append(
        f"matches: {total} in {len(pairs)} pairs; median distance to epipolar lines "
        f"{check.epipolar:.2f} pixels; {check.in_front:.0%} of points in front of the cameras"
    )
    problems = _camera_problems(check)
    depths = _triangulated_depths(pairs) * scene.unit.factor
    if not problems and len(depths):
        fact, problems = _check_range(depths, scene)
        facts.append(fact)
    best = max(counts, key=lambda pair: counts[pair])
    return SceneChecks(facts, warnings, problems, best)


def damaged_views(scene: PosedScene) -> list[str]:
    """Return the errors of the views that cannot be read; of large scenes a sample is read."""
    height, width = scene.image_size
    messages = []
    for view in spread_evenly(scene.view_ids, max(1, _MAX_READ_PIXELS // (height * width))):
        try:
            scene.read_view(view)
        except UserError as error:
            messages.append(str(error))
    return messages


def choose_pairs(scene: PosedScene, count: int) -> list[tuple[int, int]]:
    """Choose pairs of neighbouring views.

    Wrong poses give wrong neighbours, so only half of the pairs are neighbours by the files or by
    pose. The other half are consecutive by file name.
    """
    ids = scene.view_ids
    pairs = []
    for target in spread_evenly(ids, max(1, count // 2)):
        pairs.append((target, scene.ranked_neighbours(target)[0]))
        index = ids.index(target)
        pairs.append((target, ids[index + 1] if index + 1 < len(ids) else ids[index - 1]))
    return list(dict.fromkeys(pairs))


def _match_pairs(scene: PosedScene, num_pairs: int) -> dict[tuple[int, int], MatchedPair]:
    matches = {}
    for pair in choose_pairs(scene, num_pairs):
        pixels = match_pair(scene.load_views(pair).images)
        if pixels.shape[1]:
            indices = [scene.view_ids.index(view) for view in pair]
            matches[pair] = MatchedPair(pixels, scene.cameras_of_files[indices])
    return matches


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
    aspect = (focal_x / focal_y).median().item()
    if not 1 / _MAX_ASPECT < aspect < _MAX_ASPECT:
        warnings.append(
            f"fl_x is {aspect:.2f} times fl_y: were the images resized with another aspect, or "
            "width and height swapped?"
        )
    centers = intrinsics[:, :2, 2] / intrinsics.new_tensor([width, height]) - 0.5
    if centers.abs().max() > _MAX_CENTER_OFFSET:
        offset = centers[centers.abs().amax(1).argmax()]
        warnings.append(
            f"a principal point is off the centre by {offset[0]:+.0%} of the width and "
            f"{offset[1]:+.0%} of the height: were images cropped, or cx and cy swapped?"
        )
    return facts, warnings


def _camera_problems(check: CameraCheck) -> list[str]:
    if check.consistent:
        return []
    problem = (
        f"the cameras disagree with the images: matches lie {check.epipolar:.1f} pixels from "
        f"their epipolar lines (median), {check.in_front:.0%} of the points are in front."
    )
    if check.hypothesis is None:
        return [
            f"{problem} No common mistake in the conventions explains it. Do images and cameras "
            "belong together, in this order? Is lens distortion missing from the file?"
        ]
    return [
        f"{problem} The distance would be {check.corrected_epipolar:.2f} pixels if the file had "
        f"{check.hypothesis.name}. To fix it: {check.hypothesis.remedy}."
    ]


def _triangulated_depths(pairs: Sequence[MatchedPair]) -> Float[Tensor, " point"]:
    """Return the depths of matches with a reliable depth and a small epipolar distance."""
    depths = []
    for pair in pairs:
        fit = fit_pair(pair.pixels, pair.cameras)
        inliers = fit.reliable & (fit.depths > 0).all(0) & (fit.epipolar < 2)
        depths.append(fit.depths[:, inliers].flatten())
    return torch.cat(depths)


def _check_range(depths: Float[Tensor, " point"], scene: PosedScene) -> tuple[str, list[str]]:
    """Check near and far against triangulated depths in the unit of the files."""
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
    problem = (
        f"exclude {1 - inside:.0%} of the triangulated points"
        if inside < _MIN_INSIDE
        else f"leave only {share:.2%} of the inverse depths to the triangulated points"
    )
    digits = 2 - math.floor(math.log10(max(low, 1e-12)))
    return fact, [
        f"near {near:.4g} and far {far:.4g} {problem}: they lie from {low:.4g} to {high:.4g}. To "
        f"fix it: give near and far in the file, or --near_far {round(0.8 * low, digits):g} "
        f"{round(1.2 * high, digits):g}."
    ]
