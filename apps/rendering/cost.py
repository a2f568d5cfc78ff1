"""How long a rendering takes, from one timed frame, and how to make it cheaper."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from apps.rendering.frames import FrameStore, Job
from models.scenes.renderable_scene import RenderedView

_LONG = 90.0
"""Seconds from which on a cheaper rendering is suggested."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RenderingCost:
    """Seconds that the parts of a rendering take."""

    encode: float
    """Of one set of sources."""
    render: float
    """Of one frame from one set."""

    def scaled(self, factor: float) -> RenderingCost:
        """Return the cost of frames and sources with so many times the pixels."""
        return RenderingCost(factor * self.encode, factor * self.render)

    def of_frames(self, job: Job, frames: Sequence[int]) -> float:
        """Return the seconds of some frames of a video."""
        chosen = [one.source_indices for frame in frames for one in job.sources[frame]]
        return self.encode * len(set(chosen)) + self.render * len(chosen)


def render_frames(job: Job, store: FrameStore, progress: bool = True) -> None:
    """Render the frames that are not there yet; say after the first how long all will take."""
    missing = [frame for frame in range(len(job)) if not store.has(frame)]
    if not missing:
        return
    view, cost = timed_frame(job, missing[0])
    store.write(missing[0], view)
    _LOG.info("%s: %s", job.scene.name, describe_cost(cost, job, missing))
    done = len(job) - len(missing) + 1
    bar = tqdm(missing[1:], "frames", len(job), initial=done, unit="frame", disable=not progress)
    for frame in bar:
        store.write(frame, job.render(frame))


def timed_frame(job: Job, frame: int) -> tuple[RenderedView, RenderingCost]:
    """Render a frame and return what its parts took."""
    sets = job.sources[frame]
    started = time.perf_counter()
    for one in sets:
        job.scene.prepare(one.source_indices)
    encoded = time.perf_counter()
    view = job.render(frame)
    seconds = encoded - started, time.perf_counter() - encoded
    return view, RenderingCost(*(each / len(sets) for each in seconds))


def describe_cost(cost: RenderingCost, job: Job, frames: Sequence[int]) -> str:
    """Say what is rendered, how long it takes and, if that is long, how to make it cheaper."""
    seconds, (height, width) = cost.of_frames(job, frames), job.path.size
    text = (
        f"{len(frames)} frames of {width}x{height}, about {in_words(seconds)} "
        f"({cost.render:.2g} s a frame)"
    )
    if seconds < _LONG:
        return text
    half = in_words(cost.scaled(0.25).of_frames(job, frames))
    smaller = f"--size {height // 2} {width // 2} takes about {half}"
    return f"{text}; cheaper: fewer frames, or smaller ones: {smaller}"


def in_words(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
