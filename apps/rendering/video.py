"""Render a video along a camera path and write it as MP4, GIF or a folder of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from apps.rendering.config import VideoConfig
from apps.rendering.frames import FrameStore, RenderingJob, plan_frames, render_frames
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import frame_size, make_path
from utils.errors import UserError
from utils.figures import color_bar, depth_picture, robust_range
from utils.files import check_output_file, check_output_folder
from utils.images import save_image
from utils.video import VIDEO_SUFFIXES, write_video


def run_video(config: VideoConfig) -> str:
    """Render a video and return a summary line."""
    out = Path(config.out)
    _check_output(out)
    scene = open_scene(config.scene, config.model, frame_size(config.camera_path))
    path = make_path(config.camera_path, scene, chosen=bool(config.scene.sources))
    job = plan_frames(scene, path)
    store = job.store(out)
    try:
        render_frames(job, store)
    except KeyboardInterrupt:
        done = sum(store.has(frame) for frame in range(len(job)))
        raise KeyboardInterrupt(
            f"stopped: {done} of {len(job)} frames are kept in {store.folder}; the same command "
            "resumes"
        ) from None
    save_video(job, store, out, config.fps, config.depth)
    store.remove()
    height, width = path.size
    depth = ", with depth maps" if config.depth else ""
    return f"{out}: {len(job)} frames of {width}x{height}{depth}"


def save_video(
    job: RenderingJob, store: FrameStore, out: str | Path, fps: float, depth: bool
) -> None:
    """Write stored frames as MP4, GIF or a folder of images, depending on the suffix."""
    out = Path(out)
    frames = _with_depth(job, store) if depth else (view.rgb for view in store.read_all(len(job)))
    if out.suffix.lower() in VIDEO_SUFFIXES:
        write_video(out, frames, fps)
        return
    for number, frame in enumerate(frames):
        save_image(out / f"frame_{number:05d}.png", frame)


def _check_output(out: Path) -> None:
    """Check that the video or the folder of frames can be written."""
    if out.suffix.lower() in VIDEO_SUFFIXES:
        check_output_file(out, "--out")
    elif out.suffix:
        raise UserError(f"{out}: cannot write {out.suffix}; --out takes .mp4 or .gif, or a folder")
    elif out.is_file():
        raise UserError(f"{out}: is a file; --out without .mp4 or .gif names a folder")
    else:
        check_output_folder(out, "--out")


def _with_depth(job: RenderingJob, store: FrameStore) -> Iterator[Float[Tensor, "3 height width"]]:
    """Yield colours and depth side by side, all depth maps on one scale."""
    depth_range = robust_range((view.depth, view.solid) for view in store.read_all(len(job)))
    bar = color_bar(job.path.size[0], depth_range, job.scene.unit)
    for view in store.read_all(len(job)):
        depth = depth_picture(view.depth, view.solid, depth_range)
        yield torch.cat([view.rgb, depth, bar], -1)
