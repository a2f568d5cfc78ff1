"""Which source views each frame reads, so that nothing pops as the camera travels.

The nearest sources are chosen at keyframes only; between two keyframes the picture fades from one
set's to the other's. A frame thus costs two renderings at most, and pictures change slowly where
the camera moves slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.rendering.scene import Picture, RenderableScene
from utils.cameras import Cameras
from utils.surroundings import focus_point


@dataclass(frozen=True)
class SourceSet:
    """Some source views and their share in a frame."""

    places: tuple[int, ...]
    """Places among the scene's cameras, in rising order."""
    share: float


FrameSources = tuple[SourceSet, ...]
"""One set or two; the shares sum to 1."""


def plan_sources(
    path: Cameras, scene: RenderableScene, longest: int, closed: bool = False
) -> tuple[FrameSources, ...]:
    """Choose the sources of every frame of a path.

    Args:
        path: Cameras of the frames.
        scene: Whose sources to choose among.
        longest: Frames between keyframes, at most.
        closed: After the last frame the first one follows again.
    """
    sources, ahead = scene.cameras, _focus_distance(scene)
    keys = keyframes(
        _apart(path, path, ahead), _neighbour_distance(sources, ahead), longest, closed
    )
    distances = source_distances(path, scene)
    count = len(distances)
    sets = [nearest_sources(distances[key % count], scene.n_sources) for key in keys]
    plan = []
    for start, end, before, after in zip(keys, keys[1:], sets, sets[1:], strict=False):
        frames = range(start, end)
        plan += [_fade(before, after, (frame - start) / len(frames)) for frame in frames]
    if not closed:
        plan.append((SourceSet(sets[-1], 1.0),))
    return tuple(plan)


def keyframes(
    apart: Float[Tensor, "frame frame"], farthest: float, longest: int, closed: bool
) -> list[int]:
    """Return the frames at which sources are chosen, the first and the last among them.

    Where the camera passes many sources quickly, keyframes follow each other quickly: between two
    of them it comes past one source, or takes a single step.

    Args:
        apart: Distance of any two frames.
        farthest: Distance of two keyframes, at most.
        longest: Frames from one to the next, at most.
        closed: The first frame follows the last one, as frame number ``len(apart)``.
    """
    count = len(apart)
    last = count if closed else count - 1
    steps = apart.roll(-1, 1).diagonal().tolist()
    keys, moved = [0], 0.0
    for frame in range(1, last + 1):
        moved += steps[frame - 1]
        following = steps[frame % count]
        if frame == last or frame - keys[-1] == longest or moved + following > farthest:
            keys.append(frame)
            moved = 0.0
    return keys


def source_distances(path: Cameras, scene: RenderableScene) -> Float[Tensor, "frame view"]:
    """Return how far each frame is from each source: apart, and looking elsewhere.

    That is the distance of the centres plus that of the points ahead, as far away as what the
    sources look at.
    """
    return _apart(path, scene.cameras, _focus_distance(scene))


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


def _apart(cameras: Cameras, others: Cameras, ahead: float) -> Float[Tensor, "camera other"]:
    def places(cameras: Cameras) -> Float[Tensor, "camera 1 2 3"]:
        centers = cameras.centers.double()
        looked_at = centers + ahead * cameras.c2w[:, :3, 2].double()
        return torch.stack([centers, looked_at], 1)[:, None]

    return (places(cameras) - places(others).transpose(0, 1)).norm(dim=-1).sum(-1)


def _focus_distance(scene: RenderableScene) -> float:
    focus = focus_point(scene.cameras, scene.near_far)
    return (scene.cameras.centers.double() - focus).norm(dim=-1).median().item()


def _neighbour_distance(sources: Cameras, ahead: float) -> float:
    """Return how far apart neighbouring sources usually are."""
    if len(sources.c2w) == 1:
        return float("inf")
    apart = _apart(sources, sources, ahead)
    return apart.kthvalue(2, dim=1).values.median().item()


def _fade(start: tuple[int, ...], end: tuple[int, ...], share: float) -> FrameSources:
    if start == end or share == 0:
        return (SourceSet(start, 1.0),)
    return (SourceSet(start, 1 - share), SourceSet(end, share))
