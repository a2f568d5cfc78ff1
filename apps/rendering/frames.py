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

from apps.rendering.cross_fade import FrameSources, plan_sources, render_faded
from apps.rendering.paths import CameraPath
from apps.rendering.scene import Picture, RenderableScene
from utils.errors import UserError
from utils.images import save_image
from utils.videos import as_float

_READ_ERRORS = (OSError, SyntaxError, ValueError, KeyError, EOFError, zipfile.BadZipFile)
"""What Pillow and numpy raise on damaged files."""


@dataclass(frozen=True)
class FrameStore:
    """A folder of frames that belong together.

    A frame is a picture and a file of depth and opacity. The picture is written last, so that a
    frame whose picture is there is whole.
    """

    folder: Path

    def has(self, frame: int) -> bool:
        """Tell whether a frame is there."""
        return self._picture(frame).is_file()

    def write(self, frame: int, picture: Picture) -> None:
        """Keep a frame.

        Raises:
            UserError: The disk is full or cannot be written.
        """
        rest = self._picture(frame).with_suffix(".npz")
        partial = rest.with_name(f".partial-{rest.name}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            depth, opacity = picture.depth.numpy(), picture.opacity.half().numpy()
            np.savez_compressed(partial, depth=depth, opacity=opacity)
            partial.replace(rest)
            save_image(self._picture(frame), picture.rgb)
        except OSError as error:
            raise UserError(
                f"{rest}: cannot write the frame ({error.strerror}); frames before it are kept. "
                "Free space, or choose another --out"
            ) from error

    def read(self, frame: int) -> Picture:
        """Take a frame back, its colours rounded to 8 bit.

        Raises:
            UserError: A file of it is damaged.
        """
        path = self._picture(frame)
        try:
            with Image.open(path) as image:
                rgb = as_float(np.asarray(image.convert("RGB")))
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
                depth = torch.from_numpy(arrays["depth"])
                opacity = torch.from_numpy(arrays["opacity"]).float()
        except _READ_ERRORS as error:
            raise UserError(
                f"{path}: the frame is damaged; delete it and run the same command again"
            ) from error
        return Picture(rgb, depth, opacity)

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


def plan_frames(scene: RenderableScene, path: CameraPath, fade: int) -> Job:
    """Choose every frame's sources."""
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
        camera = job.path.cameras[frame]
        store.write(frame, render_faded(job.scene, camera, job.path.size, job.sources[frame]))


def read_frames(job: Job, store: FrameStore) -> Iterator[Picture]:
    """Take all frames back, in their order.

    Raises:
        UserError: A file is damaged.
    """
    return (store.read(frame) for frame in range(len(job)))
