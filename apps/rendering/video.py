"""One video from its settings to its file, which plays everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from apps.rendering.config import VideoConfig
from apps.rendering.cost import render_frames
from apps.rendering.frames import FrameStore, Job, plan_frames
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import frame_size, make_path
from utils.errors import UserError
from utils.figures import color_bar, depth_picture, robust_range
from utils.files import check_output_file, check_output_folder
from utils.images import save_image
from utils.video import VIDEO_SUFFIXES, write_video


def run_video(config: VideoConfig, progress: bool = True) -> str:
    """Render a video and say what was made."""
    out = Path(config.out)
    check_destination(out)
    scene = open_scene(config.scene, config.model, frame_size(config.camera_path))
    path = make_path(config.camera_path, scene, chosen=bool(config.scene.sources))
    job = plan_frames(scene, path)
    store = job.store(out)
    try:
        render_frames(job, store, progress)
    except KeyboardInterrupt:
        done = sum(store.has(frame) for frame in range(len(job)))
        raise KeyboardInterrupt(
            f"stopped: {done} of {len(job)} frames are kept in {store.folder}; the same command "
            "goes on from there"
        ) from None
    save_video(job, store, out, config.fps, config.depth)
    store.remove()
    height, width = path.size
    beside = ", depth beside them" if config.depth else ""
    return f"{out}: {len(job)} frames of {width}x{height}{beside}"


def check_destination(out: Path) -> None:
    """Prove that a video or a folder of frames can be written."""
    if out.suffix.lower() in VIDEO_SUFFIXES:
        check_output_file(out, "--out")
    elif out.suffix:
        raise UserError(f"{out}: cannot write {out.suffix}; --out takes .mp4 or .gif, or a folder")
    elif out.is_file():
        raise UserError(f"{out}: is a file; --out without .mp4 or .gif names a folder")
    else:
        check_output_folder(out, "--out")


def save_video(job: Job, store: FrameStore, out: str | Path, fps: float, depth: bool) -> None:
    """Write finished frames as MP4, GIF or single pictures; the name's ending chooses."""
    out = Path(out)
    frames = _with_depth(job, store) if depth else (view.rgb for view in store.read_all(len(job)))
    if out.suffix.lower() in VIDEO_SUFFIXES:
        write_video(out, frames, fps)
        return
    for number, frame in enumerate(frames):
        save_image(out / f"frame_{number:05d}.png", frame)


def _with_depth(job: Job, store: FrameStore) -> Iterator[Float[Tensor, "3 height width"]]:
    """Yield colour and depth side by side, all frames on one scale."""
    shown = robust_range((view.depth, view.solid) for view in store.read_all(len(job)))
    bar = color_bar(job.path.size[0], shown, job.scene.unit)
    for view in store.read_all(len(job)):
        depth = depth_picture(view.depth, view.solid, shown)
        yield torch.cat([view.rgb, depth, bar], -1)
