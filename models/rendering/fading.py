"""Which source views each frame reads, so that nothing pops as the camera travels.

The nearest sources are chosen at keyframes only; between two keyframes the picture fades from one
set's to the other's. A frame thus costs two renderings at most, and a set's share changes by no
more than one over the spacing from frame to frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.rendering.scene import Picture, RenderableScene
from utils.cameras import Cameras
from utils.trajectories import focus_point


@dataclass(frozen=True)
class SourceSet:
    """Some source views and their share in a frame."""

    places: tuple[int, ...]
    """Places among the scene's cameras, in rising order."""
    share: float


FrameSources = tuple[SourceSet, ...]
"""One set or two; the shares sum to 1."""


def plan_sources(
    path: Cameras, scene: RenderableScene, spacing: int, closed: bool = False
) -> tuple[FrameSources, ...]:
    """Choose the sources of every frame of a path.

    Args:
        path: Cameras of the frames.
        scene: Whose sources to choose among.
        spacing: Frames between keyframes.
        closed: After the last frame the first one follows again.
    """
    count = len(path.c2w)
    keys = list(range(0, count, spacing))
    distances = source_distances(path, scene)
    sets = {key: nearest_sources(distances[key], scene.n_sources) for key in [*keys, count - 1]}
    plan = []
    for frame in range(count):
        start = frame // spacing * spacing
        end = min(start + spacing, count if closed else count - 1)
        after = sets[0] if end == count else sets[end]
        share = (frame - start) / max(end - start, 1)
        plan.append(_fade(sets[start], after, share))
    return tuple(plan)


def source_distances(path: Cameras, scene: RenderableScene) -> Float[Tensor, "frame view"]:
    """Return how far each frame is from each source: apart, and looking elsewhere.

    That is the distance of the centres plus that of the points ahead, as far away as what the
    sources look at.
    """
    sources = scene.cameras
    focus = focus_point(sources, scene.near_far)
    ahead = (sources.centers.double() - focus).norm(dim=-1).median()

    def corners(cameras: Cameras) -> Float[Tensor, "camera 6"]:
        centers = cameras.centers.double()
        return torch.cat([centers, centers + ahead * cameras.c2w[:, :3, 2].double()], -1)

    both = corners(path)[:, None] - corners(sources)
    return both[..., :3].norm(dim=-1) + both[..., 3:].norm(dim=-1)


def nearest_sources(distances: Float[Tensor, " view"], count: int) -> tuple[int, ...]:
    """Return the places of the nearest sources, in rising order; of equals the first counts."""
    order = torch.argsort(distances, stable=True)[:count]
    return tuple(sorted(order.tolist()))


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
    if share == 1:
        return (SourceSet(end, 1.0),)
    return (SourceSet(start, 1 - share), SourceSet(end, share))
