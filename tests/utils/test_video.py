"""Videos that play everywhere."""

import re

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from utils.errors import UserError
from utils.video import write_video


def moving_bars(count=6, height=48, width=64):
    for frame in range(count):
        image = torch.full((3, height, width), 0.2)
        image[0, :, 8 * frame : 8 * frame + 8] = 0.9
        yield image


TRUTH = np.stack([image.permute(1, 2, 0).numpy() for image in moving_bars()])


def test_mp4_is_h264_in_colours_that_every_player_knows(tmp_path, decode_video):
    path = tmp_path / "new" / "video.MP4"
    write_video(path, moving_bars(), 12.5)
    said, decoded = decode_video(path)
    assert re.search(r"Video: h264 .*yuv420p\(tv, bt709.* 64x48.* 12.50 fps", said), said
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "browsers start to play at once"
    assert decoded.shape == TRUTH.shape and np.abs(decoded / 255 - TRUTH).mean() < 0.03


def test_gif_repeats_and_keeps_its_frames(tmp_path):
    path = tmp_path / "video.GIF"
    write_video(path, moving_bars(), 10.0)
    decoded = imageio.imread(path)
    assert decoded.shape == TRUTH.shape and np.abs(decoded / 255 - TRUTH).max() < 0.1
    assert path.read_bytes().startswith(b"GIF89a") and b"NETSCAPE2.0" in path.read_bytes()


def test_odd_sides_grow_by_a_copy(tmp_path, decode_video):
    write_video(tmp_path / "video.mp4", moving_bars(3, 31, 45), 5.0)
    _, decoded = decode_video(tmp_path / "video.mp4")
    assert decoded.shape == (3, 32, 46, 3)
    assert (decoded[:, -1].astype(int) - decoded[:, -2]).max() < 20


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
