"""Videos that play everywhere, written whole or not at all."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from utils.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".gif")
_QUALITY = "18"
"""Constant rate factor of x264: 0 is lossless, 18 looks like it."""
_H264 = [
    *("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", _QUALITY, "-preset", "medium"),
    # The colours are those of HD video, and say so; the index stands first, so that a browser
    # can start to play before it has everything.
    *("-vf", "scale=out_color_matrix=bt709:out_range=tv"),
    *("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
    *("-color_range", "tv", "-movflags", "+faststart"),
]
_GIF = [
    *(
        "-filter_complex",
        "split[a][b];[a]palettegen=stats_mode=diff[p];[b][p]paletteuse=dither=bayer:bayer_scale=4",
    ),
    *("-loop", "0"),
]


def write_video(
    path: str | Path, frames: Iterable[Float[Tensor, "3 height width"]], fps: float
) -> None:
    """Write RGB frames in [0, 1] as H.264 in MP4, or as a GIF that repeats; the suffix chooses.

    Odd sides grow by one pixel, a copy of their last: H.264's colours need even ones.

    Raises:
        UserError: The file cannot be written, or there is no frame.
    """
    path = Path(path)
    pixels = (_to_bytes(frame) for frame in frames)
    first = next(pixels, None)
    if first is None:
        raise UserError(f"{path}: there is no frame to write")
    partial = path.with_name(f".partial-{path.name}")
    command = [
        *(imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{first.shape[1]}x{first.shape[0]}"),
        *("-r", f"{fps:g}", "-i", "-", "-an"),
        *(_GIF if path.suffix.lower() == ".gif" else _H264),
        str(partial),
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        said = _feed(command, first, pixels)
        if said:
            raise UserError(f"{path}: the video could not be written: {said}")
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot write the video ({error.strerror})") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _feed(
    command: list[str],
    first: UInt8[np.ndarray, "height width 3"],
    rest: Iterable[UInt8[np.ndarray, "height width 3"]],
) -> str:
    """Run ffmpeg and return what it complains about, if it fails."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stderr is not None
    with process:
        try:
            process.stdin.write(first.tobytes())
            for frame in rest:
                process.stdin.write(frame.tobytes())
            process.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg has ended; it says why.
        said = process.stderr.read().decode(errors="replace").strip()
    return (said.splitlines() or ["ffmpeg failed"])[-1] if process.returncode else ""


def _to_bytes(frame: Float[Tensor, "3 height width"]) -> UInt8[np.ndarray, "height2 width2 3"]:
    pixels = (frame.detach().float().clamp(0, 1) * 255).round().byte()
    height, width = pixels.shape[1:]
    odd = ((0, height % 2), (0, width % 2), (0, 0))
    array = np.pad(pixels.permute(1, 2, 0).cpu().numpy(), odd, mode="edge")
    return np.ascontiguousarray(array)


def as_float(picture: UInt8[np.ndarray, "height width 3"]) -> Float[Tensor, "3 height width"]:
    """Turn 8-bit pixels as files have them into an image in [0, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
