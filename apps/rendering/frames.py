"""Frames of a video: source views, rendering with a time estimate, files of finished frames.

Each finished frame is a file, so an interrupted run resumes after the last one.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from apps.rendering.paths import CameraPath
from models.scenes.cross_fade import LONGEST_FADE, FrameSources, plan_sources, render_cross_fade
from models.scenes.renderable_scene import RenderableScene, RenderedView
from utils.errors import UserError
from utils.files import atomic_write, read_arrays
from utils.images import from_bytes, to_bytes

_MAX_FRAME_BYTES = 1 << 30
_FRAME_TYPES = [np.dtype(kind) for kind in (np.uint8, np.float32, np.float16)]
"""Of colours, depth and opacity."""
_REMEDY = "Finished frames are kept. Free space, or choose another --out."
_LONG_RENDERING = 90.0
"""Seconds above which the estimate names a cheaper size."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameStore:
    """A folder of finished frames, one file per frame."""

    folder: Path

    def has(self, frame: int) -> bool:
        """Return whether a frame is stored."""
        return self._path(frame).is_file()

    def write(self, frame: int, view: RenderedView) -> None:
        """Store a frame: colours in 8 bits, opacity in half precision."""
        rgb, opacity = to_bytes(view.rgb), view.opacity.half().numpy()
        with atomic_write(self._path(frame), _REMEDY) as partial:
            np.savez_compressed(partial, rgb=rgb, depth=view.depth.numpy(), opacity=opacity)

    def read(self, frame: int) -> RenderedView:
        """Read a stored frame."""
        path = self._path(frame)
        try:
            arrays = read_arrays(path, _MAX_FRAME_BYTES)
            rgb, depth, opacity = (arrays[name] for name in ("rgb", "depth", "opacity"))
            kinds = [array.dtype for array in (rgb, depth, opacity)]
            if kinds != _FRAME_TYPES or not rgb.shape == (*depth.shape, 3) == (*opacity.shape, 3):
                raise ValueError("other arrays than those of a frame")
            depth, opacity = torch.from_numpy(depth), torch.from_numpy(opacity).float()
            return RenderedView(from_bytes(rgb), depth, opacity)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: damaged; delete it and run the command again") from error

    def read_all(self, count: int) -> Iterator[RenderedView]:
        """Read the first ``count`` frames in order."""
        return map(self.read, range(count))

    def remove(self) -> None:
        """Delete the frames, and the parent folder if it is empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _path(self, frame: int) -> Path:
        return self.folder / f"frame_{frame:05d}.npz"


@dataclass(frozen=True)
class RenderingJob:
    """A scene, a camera path, and the source views of each frame."""

    scene: RenderableScene
    path: CameraPath
    sources: tuple[FrameSources, ...]
    """One entry per frame."""

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.sources)

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines the frames."""
        digest = hashlib.sha256(self.scene.fingerprint().encode())
        for tensor in vars(self.path.cameras).values():
            digest.update(tensor.contiguous().numpy().tobytes())
        digest.update(repr((self.path.size, self.sources)).encode())
        return digest.hexdigest()[:12]

    def store(self, out: str | Path) -> FrameStore:
        """Return the store of unfinished frames: beside the output, named by the fingerprint."""
        out = Path(out)
        return FrameStore(out.with_name(f"{out.name}.partial") / self.fingerprint)

    def render(self, frame: int) -> RenderedView:
        """Render one frame."""
        camera, size = self.path.cameras[frame], self.path.size
        return render_cross_fade(self.scene, camera, size, self.sources[frame])


@dataclass(frozen=True)
class RenderingCost:
    """Seconds of encoding one set of source views and of rendering one frame from it."""

    encode: float
    render: float

    def scaled(self, factor: float) -> RenderingCost:
        """Return the cost at ``factor`` times the number of pixels."""
        return RenderingCost(factor * self.encode, factor * self.render)

    def of_frames(self, job: RenderingJob, frames: Sequence[int]) -> float:
        """Return the seconds for the given frames of a job."""
        source_sets = [item.source_indices for frame in frames for item in job.sources[frame]]
        return self.encode * len(set(source_sets)) + self.render * len(source_sets)


def plan_frames(
    scene: RenderableScene, path: CameraPath, longest: int = LONGEST_FADE
) -> RenderingJob:
    """Choose the source views of every frame, with keyframes at most ``longest`` frames apart."""
    sources = plan_sources(scene, path.cameras, path.size, path.closed, longest)
    return RenderingJob(scene, path, sources)


def render_frames(job: RenderingJob, store: FrameStore) -> None:
    """Render the frames that are not stored yet; log a time estimate after the first."""
    missing = [frame for frame in range(len(job)) if not store.has(frame)]
    if not missing:
        return
    view, cost = timed_frame(job, missing[0])
    store.write(missing[0], view)
    _LOG.info("%s: %s", job.scene.name, describe_cost(cost, job, missing))
    done = len(job) - len(missing) + 1
    for frame in tqdm(missing[1:], "frames", len(job), initial=done, unit="frame"):
        store.write(frame, job.render(frame))


def timed_frame(job: RenderingJob, frame: int) -> tuple[RenderedView, RenderingCost]:
    """Render a frame and measure its cost."""
    source_sets = job.sources[frame]
    start = time.perf_counter()
    for item in source_sets:
        job.scene.prepare(item.source_indices)
    encoded = time.perf_counter()
    view = job.render(frame)
    seconds = encoded - start, time.perf_counter() - encoded
    return view, RenderingCost(*(part / len(source_sets) for part in seconds))


def describe_cost(cost: RenderingCost, job: RenderingJob, frames: Sequence[int]) -> str:
    """Return a line with frame count, size and estimated time, and a cheaper size if it is long."""
    seconds, (height, width) = cost.of_frames(job, frames), job.path.size
    text = (
        f"{len(frames)} frames of {width}x{height}, about {format_duration(seconds)} "
        f"({cost.render:.2g} s a frame)"
    )
    if seconds < _LONG_RENDERING:
        return text
    shorter = format_duration(cost.scaled(0.25).of_frames(job, frames))
    smaller = f"--size {height // 2} {width // 2} takes about {shorter}"
    return f"{text}; cheaper: fewer frames, or smaller ones: {smaller}"


def format_duration(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
