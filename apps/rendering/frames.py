"""Frames of a video: which sources each reads, its rendering, and its file.

Finished frames are files, kept when a run is interrupted.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from apps.rendering.paths import CameraPath
from models.scenes.cross_fade import LONGEST_FADE, FrameSources, plan_sources, render_cross_fade
from models.scenes.renderable_scene import RenderableScene, RenderedView
from utils.errors import UserError
from utils.files import atomic_write, read_arrays
from utils.images import from_bytes, to_bytes

_MAX_BYTES = 1 << 30
"""Of one frame."""
_REMEDY = "Frames before it are kept. Free space, or choose another --out."


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
        with atomic_write(self._path(frame), _REMEDY) as partial:
            np.savez_compressed(partial, rgb=rgb, depth=view.depth.numpy(), opacity=opacity)

    def read(self, frame: int) -> RenderedView:
        """Read a frame back, its colours rounded to 8 bit."""
        path = self._path(frame)
        try:
            arrays = read_arrays(path, _MAX_BYTES)
            depth, opacity = (torch.from_numpy(arrays[name]) for name in ("depth", "opacity"))
            return RenderedView(from_bytes(arrays["rgb"]), depth, opacity.float())
        except (OSError, ValueError, KeyError) as error:
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
    return Job(scene, path, plan_sources(scene, path.cameras, path.size, path.closed, longest))
