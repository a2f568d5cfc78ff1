"""Videos that play everywhere: H.264 in MP4, and GIF."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from utils.errors import UserError
from utils.files import written_whole
from utils.images import to_bytes

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
