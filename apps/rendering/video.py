"""One video from its settings to its file, which plays everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from apps.rendering.config import VideoConfig
from apps.rendering.frames import FrameStore, Job, plan_frames, render_frames
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import frame_size, make_path
from utils.errors import UserError
from utils.figures import color_bar, depth_picture, robust_range
from utils.files import check_output_file, check_output_folder, written_whole
from utils.images import save_image, to_bytes

VIDEO_SUFFIXES = (".mp4", ".gif")
_MP4: dict[str, Any] = {
    "codec": "libx264",
    "pix_fmt_out": "yuv420p",
    "output_params": [
        *("-crf", "18", "-preset", "medium"),
        # HD colours, declared as such; the index comes first, so that browsers can stream.
        *("-vf", "scale=out_color_matrix=bt709:out_range=tv", "-color_range", "tv"),
        *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
        *("-movflags", "+faststart"),
    ],
}
_PALETTE = (
    "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=bayer:bayer_scale=4"
)
_GIF: dict[str, Any] = {
    "codec": "gif",
    "pix_fmt_out": "pal8",
    "output_params": ["-filter_complex", _PALETTE, "-loop", "0"],
}


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


def write_video(
    path: str | Path, frames: Iterable[Float[Tensor, "3 height width"]], fps: float
) -> None:
    """Write RGB frames in [0, 1] as H.264 in MP4 or as a repeating GIF; the suffix chooses."""
    path, count = Path(path), 0
    pixels = (_even_sides(to_bytes(frame)) for frame in frames)
    first = next(pixels, None)
    if first is None:
        raise UserError(f"{path}: there is no frame to write")
    coding = _GIF if path.suffix.lower() == ".gif" else _MP4
    with written_whole(path) as partial:
        writer = imageio_ffmpeg.write_frames(
            partial,
            (first.shape[1], first.shape[0]),
            **coding,
            fps=fps,  # pyright: ignore[reportArgumentType]
            quality=None,  # pyright: ignore[reportArgumentType]
            macro_block_size=1,
            ffmpeg_log_level="error",
        )
        writer.send(None)
        try:
            writer.send(first)
            for count, frame in enumerate(pixels, 1):  # noqa: B007
                writer.send(frame)
        finally:
            writer.close()
        # ffmpeg's exit status is not reported: a full disk shows in the number of frames.
        if _count_frames(partial) != count + 1:
            raise OSError("ffmpeg stopped early; it printed the reason")


def _count_frames(path: Path) -> int:
    try:
        return imageio_ffmpeg.count_frames_and_secs(path)[0] or 0
    except RuntimeError:
        return 0


def _even_sides(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """Repeat the last pixel of odd sides: H.264 with 4:2:0 colours needs even ones."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded)
