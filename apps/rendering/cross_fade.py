"""Which source views each frame reads, so that nothing pops as the camera travels.

The nearest sources are chosen at keyframes only; between two keyframes the picture fades from one
set's to the other's. A frame thus costs two renderings at most, and pictures change slowly where
the camera moves slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from apps.rendering.paths import CameraPath
from apps.rendering.scene import Picture, RenderableScene
from apps.rendering.source_selection import focus_distance, neighbour_distance
from utils.cameras import Cameras


@dataclass(frozen=True)
class SourceSet:
    """Some source views and their share in a frame."""

    places: tuple[int, ...]
    """Places among the scene's cameras, in rising order."""
    share: float


FrameSources = tuple[SourceSet, ...]
"""One set or two; the shares sum to 1."""


def plan_sources(
    path: CameraPath, scene: RenderableScene, longest: int
) -> tuple[FrameSources, ...]:
    """Choose the sources of every frame of a path.

    Args:
        path: Cameras of the frames.
        scene: Whose sources to choose among.
        longest: Frames between keyframes, at most.
    """
    sources, near_far, cameras = scene.cameras, scene.near_far, path.cameras
    count = len(cameras.c2w)
    steps = step_lengths(cameras, focus_distance(sources, near_far))
    keys = keyframes(steps, neighbour_distance(sources, near_far), longest, path.closed)
    sets = scene.choose_sources(cameras[torch.tensor(keys) % count], path.size)
    plan = []
    for (start, end), (before, after) in zip(pairwise(keys), pairwise(sets), strict=True):
        frames = range(start, end)
        plan += [_fade(before, after, (frame - start) / len(frames)) for frame in frames]
    if not path.closed:
        plan.append((SourceSet(sets[-1], 1.0),))
    return tuple(plan)


def step_lengths(cameras: Cameras, ahead: float) -> list[float]:
    """Return how far each frame is from the next, and the last from the first.

    Both the camera and the point ahead of it move; see ``source_distances``.
    """
    centers = cameras.centers.double()
    looked_at = centers + ahead * cameras.c2w[:, :3, 2].double()
    both = torch.stack([centers, looked_at], 1)
    return (both.roll(-1, 0) - both).norm(dim=-1).sum(-1).tolist()


def keyframes(steps: Sequence[float], farthest: float, longest: int, closed: bool) -> list[int]:
    """Return the frames at which sources are chosen, the first and the last among them.

    Where the camera passes many sources quickly, keyframes follow each other quickly: between two
    of them it comes past one source, or takes a single step.

    Args:
        steps: From each frame to the next, and from the last to the first.
        farthest: Way between two keyframes, at most.
        longest: Frames from one to the next, at most.
        closed: The first frame follows the last one, as frame number ``len(steps)``.
    """
    count = len(steps)
    last = count if closed else count - 1
    keys, moved = [0], 0.0
    for frame in range(1, last + 1):
        moved += steps[frame - 1]
        following = steps[frame % count]
        if frame == last or frame - keys[-1] == longest or moved + following > farthest:
            keys.append(frame)
            moved = 0.0
    return keys


def render_faded(
    scene: RenderableScene, camera: Cameras, size: tuple[int, int], sources: Sequence[SourceSet]
) -> Picture:
    """Render a frame from each of its source sets and mix the pictures."""
    pictures = [scene.render(camera, size, one.places) for one in sources]
    shares = torch.tensor([one.share for one in sources])
    solid = torch.stack([picture.opacity for picture in pictures])
    opacity = torch.einsum("s,s...->...", shares, solid)
    # A depth counts by how solid it is there: the far background of one would spoil the other's.
    weights = shares[:, None, None] * solid.clamp_min(1e-6)
    depths = torch.stack([picture.depth for picture in pictures])
    return Picture(
        rgb=torch.einsum("s,s...->...", shares, torch.stack([p.rgb for p in pictures])),
        depth=(weights * depths).sum(0) / weights.sum(0),
        opacity=opacity,
    )


def _fade(start: tuple[int, ...], end: tuple[int, ...], share: float) -> FrameSources:
    if start == end or share == 0:
        return (SourceSet(start, 1.0),)
    return (SourceSet(start, 1 - share), SourceSet(end, share))
