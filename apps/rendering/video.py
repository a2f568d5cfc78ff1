"""One video from its settings to its file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from apps.rendering.config import VideoConfig
from apps.rendering.frames import FrameStore, Job, plan_frames, read_frames, render_frames
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import frame_size, make_path
from utils.depth_pictures import LengthUnit, color_bar, depth_picture, robust_range
from utils.errors import UserError
from utils.files import check_output_file
from utils.images import save_image
from utils.videos import VIDEO_SUFFIXES, write_video

logger = logging.getLogger(__name__)

Frames = Callable[[], Iterator[Float[Tensor, "3 height width"]]]


def run_video(config: VideoConfig, progress: bool = True) -> str:
    """Render a video and say what was made.

    Raises:
        UserError: Bad input, before any long work.
        KeyboardInterrupt: Somebody stopped it; the message says how to go on.
    """
    out = Path(config.video.out)
    check_destination(out)
    scene = open_scene(config.scene, config.model, frame_size(config.camera_path))
    path = make_path(config.camera_path, scene, chosen=bool(config.scene.sources))
    job = plan_frames(scene, path, config.video.fade)
    store = frame_store(job, out)
    try:
        render_frames(job, store, progress)
    except KeyboardInterrupt:
        done = sum(store.has(frame) for frame in range(len(job)))
        raise KeyboardInterrupt(
            f"stopped: {done} of {len(job)} frames are kept in {store.folder}; the same command "
            "goes on from there"
        ) from None
    save_video(job, store, out, config.video.fps, config.video.depth)
    store.remove()
    height, width = path.size
    return f"{out}: {len(job)} frames of {width}x{height}" + (
        ", depth beside them" if config.video.depth else ""
    )


def frame_store(job: Job, out: str | Path) -> FrameStore:
    """Return the place of a video's unfinished frames: beside the video, by what they show."""
    out = Path(out)
    return FrameStore(out.with_name(f"{out.name}.partial") / job.fingerprint)


def check_destination(out: Path) -> None:
    """Prove that a video or a folder of frames can be written.

    Raises:
        UserError: It cannot.
    """
    if out.suffix.lower() in VIDEO_SUFFIXES:
        check_output_file(out, "--out")
    elif out.suffix:
        raise UserError(
            f"{out}: cannot write {out.suffix}; --out takes a name that ends in .mp4 or .gif, or a "
            "folder"
        )
    elif out.is_file():
        raise UserError(f"{out}: is a file; --out without .mp4 or .gif names a folder")
    else:
        check_output_file(out / "frame", "--out")


def save_video(job: Job, store: FrameStore, out: str | Path, fps: float, depth: bool) -> None:
    """Write finished frames as MP4, GIF or single pictures; the name's ending chooses.

    Raises:
        UserError: A frame is damaged, or the file cannot be written.
    """
    out = Path(out)
    frames = _beside_depth(job, store) if depth else _colors(job, store)
    if out.suffix.lower() in VIDEO_SUFFIXES:
        write_video(out, frames(), fps)
        return
    for number, frame in enumerate(frames()):
        try:
            save_image(out / f"frame_{number:05d}.png", frame)
        except OSError as error:
            raise UserError(f"{out}: cannot write the frame ({error.strerror})") from error


def _colors(job: Job, store: FrameStore) -> Frames:
    return lambda: (picture.rgb for picture in read_frames(job, store))


def _beside_depth(job: Job, store: FrameStore) -> Frames:
    """Put depth beside colour, all frames on one scale."""
    shown = robust_range((picture.depth, picture.solid) for picture in read_frames(job, store))
    unit: LengthUnit = job.scene.unit
    bar = color_bar(job.path.size[0], shown, unit)

    def frames() -> Iterator[Float[Tensor, "3 height width"]]:
        for picture in read_frames(job, store):
            depth = depth_picture(picture.depth, picture.solid, shown)
            yield torch.cat([picture.rgb, depth, bar], -1)

    return frames
