"""Writing of videos: H.264 in MP4, and GIF."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from utils.errors import UserError
from utils.files import atomic_write
from utils.images import to_bytes

VIDEO_SUFFIXES = (".mp4", ".gif")
_MP4: dict[str, Any] = {
    "codec": "libx264",
    "pix_fmt_out": "yuv420p",
    "output_params": [
        *("-crf", "18", "-preset", "medium"),
        # BT.709 colours, declared as such; the index at the start lets browsers stream.
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


def write_video(
    path: str | Path, frames: Iterable[Float[Tensor, "3 height width"]], fps: float
) -> None:
    """Write RGB frames in [0, 1] as MP4 (H.264) or as a looping GIF, by the suffix."""
    path, count = Path(path), 0
    pixels = (_even_sides(to_bytes(frame)) for frame in frames)
    first = next(pixels, None)
    if first is None:
        raise UserError(f"{path}: there is no frame to write")
    coding = _GIF if path.suffix.lower() == ".gif" else _MP4
    with atomic_write(path) as partial:
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
        # imageio does not report ffmpeg's exit status: count the frames to detect a full disk.
        if _count_frames(partial) != count + 1:
            raise OSError("ffmpeg stopped early; it printed the reason")


def _count_frames(path: Path) -> int:
    try:
        return imageio_ffmpeg.count_frames_and_secs(path)[0] or 0
    except RuntimeError:
        return 0


def _even_sides(pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "height width 3"]:
    """Pad odd sides by one pixel: H.264 with 4:2:0 chroma subsampling needs even sides."""
    height, width, _ = pixels.shape
    padded = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded)
