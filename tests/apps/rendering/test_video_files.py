"""Videos that play everywhere."""

import re
import subprocess

import imageio.v3 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from apps.rendering.video import write_video
from utils.errors import UserError


def moving_bars(count=6, height=48, width=64):
    for frame in range(count):
        image = torch.full((3, height, width), 0.2)
        image[0, :, 8 * frame : 8 * frame + 8] = 0.9
        yield image


def decode(path, size):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24"]
    raw = subprocess.run([*command, "-"], capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, *size, 3)


def test_mp4_is_h264_in_colours_that_every_player_knows(tmp_path):
    write_video(tmp_path / "new" / "video.mp4", moving_bars(), 12.5)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", tmp_path / "new/video.mp4"]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    assert re.search(r"Video: h264 .*yuv420p\(tv, bt709.* 64x48.* 12.50 fps", said), said
    data = (tmp_path / "new" / "video.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "browsers start to play at once"
    decoded = decode(tmp_path / "new" / "video.mp4", (48, 64))
    truth = np.stack([image.permute(1, 2, 0).numpy() for image in moving_bars()])
    assert decoded.shape == truth.shape
    assert np.abs(decoded / 255 - truth).mean() < 0.03


def test_gif_repeats_and_keeps_its_frames(tmp_path):
    write_video(tmp_path / "video.gif", moving_bars(), 10.0)
    decoded = imageio.imread(tmp_path / "video.gif")
    truth = np.stack([image.permute(1, 2, 0).numpy() for image in moving_bars()])
    assert decoded.shape == truth.shape and np.abs(decoded / 255 - truth).max() < 0.1
    assert b"NETSCAPE2.0" in (tmp_path / "video.gif").read_bytes()


def test_the_case_of_the_ending_counts_nothing(tmp_path):
    for name, start in (("video.GIF", b"GIF89a"), ("video.MP4", b"\0\0\0 ftyp")):
        write_video(tmp_path / name, moving_bars(2), 10.0)
        assert (tmp_path / name).read_bytes().startswith(start)


def test_odd_sides_grow_by_a_copy(tmp_path):
    write_video(tmp_path / "video.mp4", moving_bars(3, 31, 45), 5.0)
    decoded = decode(tmp_path / "video.mp4", (32, 46))
    assert len(decoded) == 3 and (decoded[:, -1].astype(int) - decoded[:, -2]).max() < 20


def test_what_fails_leaves_nothing_behind(tmp_path):
    def broken():
        yield from moving_bars(2)
        raise RuntimeError("the renderer stopped")

    with pytest.raises(RuntimeError, match="renderer stopped"):
        write_video(tmp_path / "video.mp4", broken(), 5.0)
    with pytest.raises(UserError, match="no frame"):
        write_video(tmp_path / "video.mp4", iter(()), 5.0)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_video(tmp_path / "file" / "video.mp4", moving_bars(), 5.0)
