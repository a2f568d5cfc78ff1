"""Frames of a video: which sources each reads, its rendering, and its file.

The nearest sources are chosen at keyframes only. Between two keyframes the rendering cross-fades
from one source set to the next: none changes abruptly, and a frame costs two renderings at most.
Finished frames are files, kept when a run is interrupted.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from apps.rendering.paths import CameraPath
from apps.rendering.scene import RenderableScene, RenderedView
from utils.camera_rig import centers_and_targets, focus_distance, source_distances
from utils.cameras import Cameras
from utils.errors import UserError
from utils.files import written_whole
from utils.images import from_bytes, to_bytes

LONGEST_FADE = 12
"""Frames over which one source set fades into the next, fewer where the camera is fast."""
_REMEDY = "Frames before it are kept. Free space, or choose another --out."


@dataclass(frozen=True)
class SourceSet:
    """Some source views and their weight in a frame."""

    source_indices: tuple[int, ...]
    """Into the scene's cameras, in rising order."""
    weight: float


FrameSources = tuple[SourceSet, ...]
"""One set or two; the weights sum to 1."""


@dataclass(frozen=True)
class FrameStore:
    """A folder of finished frames, one file each."""

    folder: Path

    def has(self, frame: int) -> bool:
        """Tell whether a frame is there."""
        return self._path(frame).is_file()

    def write(self, frame: int, view: RenderedView) -> None:
        """Keep a frame."""
        rgb, opacity = to_bytes(view.rgb), view.opacity.half().numpy()
        with written_whole(self._path(frame), _REMEDY) as partial:
            np.savez_compressed(partial, rgb=rgb, depth=view.depth.numpy(), opacity=opacity)

    def read(self, frame: int) -> RenderedView:
        """Read a frame back, its colours rounded to 8 bit."""
        path = self._path(frame)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                depth, opacity = (torch.from_numpy(arrays[name]) for name in ("depth", "opacity"))
                return RenderedView(from_bytes(arrays["rgb"]), depth, opacity.float())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: damaged; delete it and run the command again") from error

    def read_all(self, count: int) -> Iterator[RenderedView]:
        """Read so many frames back, in their order."""
        return map(self.read, range(count))

    def remove(self) -> None:
        """Delete the frames, and the folder that holds them if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _path(self, frame: int) -> Path:
        return self.folder / f"frame_{frame:05d}.npz"


@dataclass(frozen=True)
class Job:
    """All frames of one video."""

    scene: RenderableScene
    path: CameraPath
    sources: tuple[FrameSources, ...]
    """For every frame."""

    def __len__(self) -> int:
        """Count the frames."""
        return len(self.sources)

    @property
    def fingerprint(self) -> str:
        """Name of the frames: whatever changes a picture changes it."""
        digest = hashlib.sha256(self.scene.fingerprint().encode())
        for tensor in vars(self.path.cameras).values():
            digest.update(tensor.contiguous().numpy().tobytes())
        digest.update(repr((self.path.size, self.sources)).encode())
        return digest.hexdigest()[:12]

    def store(self, out: str | Path) -> FrameStore:
        """Return the place of the unfinished frames: beside the output, by what they show."""
        out = Path(out)
        return FrameStore(out.with_name(f"{out.name}.partial") / self.fingerprint)

    def render(self, frame: int) -> RenderedView:
        """Render one frame."""
        camera, size = self.path.cameras[frame], self.path.size
        return render_cross_fade(self.scene, camera, size, self.sources[frame])


def plan_frames(scene: RenderableScene, path: CameraPath, longest: int = LONGEST_FADE) -> Job:
    """Choose every frame's sources, at keyframes at most ``longest`` frames apart."""
    sources, near_far, cameras = scene.cameras, scene.near_far, path.cameras
    count = len(cameras.c2w)
    farthest = float("inf")
    if len(sources.c2w) > 1:
        apart = source_distances(sources, sources, near_far)
        farthest = apart.kthvalue(2, dim=1).values.median().item()
    steps = step_lengths(cameras, focus_distance(sources, near_far))
    keys = keyframes(steps, farthest, longest, path.closed)
    sets = scene.choose_sources(cameras[torch.tensor(keys) % count], path.size)
    plan: list[FrameSources] = []
    for (start, end), (before, after) in zip(pairwise(keys), pairwise(sets), strict=True):
        for frame in range(start, end):
            weight = (frame - start) / (end - start)
            both = (SourceSet(before, 1 - weight), SourceSet(after, weight))
            plan.append(both if before != after and weight else (SourceSet(before, 1.0),))
    if not path.closed:
        plan.append((SourceSet(sets[-1], 1.0),))
    return Job(scene, path, tuple(plan))


def step_lengths(cameras: Cameras, distance: float) -> list[float]:
    """Return ``source_distances`` from each frame to the next, and from the last to the first."""
    points = centers_and_targets(cameras, distance)
    return (points.roll(-1, 0) - points).norm(dim=-1).sum(-1).tolist()


def keyframes(steps: Sequence[float], farthest: float, longest: int, closed: bool) -> list[int]:
    """Return the frames at which sources are chosen, the first and the last among them.

    Between two of them are at most ``longest`` frames and, unless a single step is longer, the
    movement ``farthest``. If closed, the first frame follows the last, as number ``len(steps)``.
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


def render_cross_fade(
    scene: RenderableScene, camera: Cameras, size: tuple[int, int], sources: Sequence[SourceSet]
) -> RenderedView:
    """Render a frame from each of its source sets and blend the renderings."""
    views = [scene.render(camera, size, one.source_indices) for one in sources]
    shares = torch.tensor([one.weight for one in sources])
    opacities = torch.stack([view.opacity for view in views])
    # Depths are weighted by opacity: the far background of one would spoil the other's.
    weights = shares[:, None, None] * opacities.clamp_min(1e-6)
    depths = torch.stack([view.depth for view in views])
    return RenderedView(
        rgb=torch.einsum("s,s...->...", shares, torch.stack([view.rgb for view in views])),
        depth=(weights * depths).sum(0) / weights.sum(0),
        opacity=torch.einsum("s,s...->...", shares, opacities),
    )
