"""Frames on disk: rendered once, kept when a run is interrupted."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from apps.rendering.cross_fade import LONGEST_FADE, FrameSources, plan_sources, render_cross_fade
from apps.rendering.paths import CameraPath
from apps.rendering.scene import RenderableScene, RenderedView
from utils.errors import UserError
from utils.files import written_whole
from utils.images import from_bytes, save_image

_READ_ERRORS = (OSError, SyntaxError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""What Pillow and numpy raise on damaged files."""
_REMEDY = "Frames before it are kept. Free space, or choose another --out."


@dataclass(frozen=True)
class FrameStore:
    """A folder of frames: each a picture and a file of depth and opacity, written first."""

    folder: Path

    def has(self, frame: int) -> bool:
        """Tell whether a frame is there."""
        return self._picture(frame).is_file()

    def write(self, frame: int, view: RenderedView) -> None:
        """Keep a frame.

        Raises:
            UserError: The disk is full or cannot be written.
        """
        path = self._picture(frame)
        with written_whole(path.with_suffix(".npz"), _REMEDY) as partial:
            depth, opacity = view.depth.numpy(), view.opacity.half().numpy()
            np.savez_compressed(partial, depth=depth, opacity=opacity)
        save_image(path, view.rgb, _REMEDY)

    def read(self, frame: int) -> RenderedView:
        """Read a frame back, its colours rounded to 8 bit.

        Raises:
            UserError: A file of it is damaged.
        """
        path = self._picture(frame)
        try:
            with Image.open(path) as image:
                rgb = from_bytes(np.asarray(image.convert("RGB")))
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
                depth, opacity = (torch.from_numpy(arrays[name]) for name in ("depth", "opacity"))
        except _READ_ERRORS as error:
            raise UserError(
                f"{path}: the frame is damaged; delete it and run the same command again"
            ) from error
        return RenderedView(rgb, depth, opacity.float())

    def remove(self) -> None:
        """Delete the frames, and the folder that holds them if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.is_dir() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()

    def _picture(self, frame: int) -> Path:
        return self.folder / f"frame_{frame:05d}.png"


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
        for tensor in (self.path.cameras.intrinsics, self.path.cameras.c2w):
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


def plan_frames(scene: RenderableScene, path: CameraPath, fade: int = LONGEST_FADE) -> Job:
    """Choose every frame's sources; one source set fades into the next over ``fade`` frames."""
    return Job(scene, path, plan_sources(path, scene, fade))


def render_frames(job: Job, store: FrameStore, progress: bool = True) -> None:
    """Render the frames that are not there yet.

    Raises:
        UserError: A photograph is damaged, or a frame cannot be written.
    """
    missing = [frame for frame in range(len(job)) if not store.has(frame)]
    done = len(job) - len(missing)
    bar = tqdm(missing, "frames", len(job), initial=done, unit="frame", disable=not progress)
    for frame in bar:
        store.write(frame, job.render(frame))


def read_frames(job: Job, store: FrameStore) -> Iterator[RenderedView]:
    """Read all frames back, in their order.

    Raises:
        UserError: A file is damaged.
    """
    return (store.read(frame) for frame in range(len(job)))
