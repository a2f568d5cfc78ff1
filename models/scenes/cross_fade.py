"""Cross-fades between source sets along a camera path.

Sources are chosen at keyframes only. Between two keyframes the rendering cross-fades from one
source set to the next: sources never change abruptly, and a frame takes at most two renderings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from models.scenes.renderable_scene import RenderableScene, RenderedView
from utils.camera_rig import centers_and_targets, focus_distance, source_distances
from utils.cameras import Cameras

LONGEST_FADE = 12
"""Maximum frames of a cross-fade; fewer where the camera is fast."""


@dataclass(frozen=True)
class SourceSet:
    """Source views and their weight in a frame."""

    source_indices: tuple[int, ...]
    """Indices into the scene's cameras, sorted."""
    weight: float


FrameSources = tuple[SourceSet, ...]
"""One or two sets; the weights sum to 1."""


def plan_sources(
    scene: RenderableScene,
    cameras: Cameras,
    size: tuple[int, int],
    closed: bool,
    longest: int = LONGEST_FADE,
) -> tuple[FrameSources, ...]:
    """Choose the sources of every camera of a path, at keyframes at most ``longest`` apart.

    In a ``closed`` path the first camera follows the last.
    """
    sources, near_far, count = scene.cameras, scene.near_far, len(cameras.c2w)
    spacing = float("inf")
    if len(sources.c2w) > 1:
        distances = source_distances(sources, sources, near_far)
        spacing = distances.kthvalue(2, dim=1).values.median().item()
    steps = step_lengths(cameras, focus_distance(sources, near_far))
    keys = keyframes(steps, spacing, longest, closed)
    sets = scene.choose_sources(cameras[torch.tensor(keys) % count], size)
    plan: list[FrameSources] = []
    for (start, end), (before, after) in zip(pairwise(keys), pairwise(sets), strict=True):
        for frame in range(start, end):
            weight = (frame - start) / (end - start)
            both = (SourceSet(before, 1 - weight), SourceSet(after, weight))
            plan.append(both if before != after and weight else (SourceSet(before, 1.0),))
    if not closed:
        plan.append((SourceSet(sets[-1], 1.0),))
    return tuple(plan)


def step_lengths(cameras: Cameras, distance: float) -> list[float]:
    """Return ``source_distances`` from each frame to the next, and from the last to the first."""
    points = centers_and_targets(cameras, distance)
    return (points.roll(-1, 0) - points).norm(dim=-1).sum(-1).tolist()


def keyframes(steps: Sequence[float], spacing: float, longest: int, closed: bool) -> list[int]:
    """Return the frames at which sources are chosen, including the first and the last.

    Two keyframes are at most ``longest`` frames apart, and their steps add up to at most
    ``spacing`` unless a single step is longer. A closed path ends with frame ``len(steps)``, a copy
    of the first.
    """
    count = len(steps)
    last = count if closed else count - 1
    keys, moved = [0], 0.0
    for frame in range(1, last + 1):
        moved += steps[frame - 1]
        following = steps[frame % count]
        if frame == last or frame - keys[-1] == longest or moved + following > spacing:
            keys.append(frame)
            moved = 0.0
    return keys


def render_cross_fade(
    scene: RenderableScene, camera: Cameras, size: tuple[int, int], sources: Sequence[SourceSet]
) -> RenderedView:
    """Render a frame from each of its source sets and blend the renderings."""
    views = [scene.render(camera, size, source_set.source_indices) for source_set in sources]
    shares = torch.tensor([source_set.weight for source_set in sources])
    opacities = torch.stack([view.opacity for view in views])
    # Weighting by opacity excludes the far depth of a rendering's background.
    weights = shares[:, None, None] * opacities.clamp_min(1e-6)
    depths = torch.stack([view.depth for view in views])
    return RenderedView(
        rgb=torch.einsum("s,s...->...", shares, torch.stack([view.rgb for view in views])),
        depth=(weights * depths).sum(0) / weights.sum(0),
        opacity=torch.einsum("s,s...->...", shares, opacities),
    )
