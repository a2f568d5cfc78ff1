"""Depth pictures that can be compared, labelled sheets, cameras in 3D."""

import numpy as np
import pytest
import torch

from utils.cameras import Cameras, LengthUnit
from utils.figures import (
    DepthRange,
    Panel,
    color_bar,
    contact_sheet,
    depth_picture,
    label_strip,
    plot_cameras,
    robust_range,
)

UP = torch.tensor([0.0, -1, 0])


def all_valid(depths):
    return depths, torch.ones_like(depths, dtype=torch.bool)


def plain(height, width, *color, label=""):
    color = torch.tensor(color, dtype=torch.float32)
    return Panel(color[:, None, None].expand(3, height, width), label)


def test_range_ignores_single_wrong_and_invalid_pixels_but_no_frame():
    depths = torch.linspace(2, 4, 10_000).reshape(100, 100)
    depths[0, :5] = torch.tensor([1e6, float("inf"), float("nan"), 0.0, -3.0])
    shown = robust_range([all_valid(depths)])
    assert 1.9 < shown.low < 2.05 and 3.95 < shown.high < 4.1
    near, far = torch.full((20, 20), 1.0), torch.full((20, 20), 9.0)
    hidden = torch.full((20, 20), 50.0), torch.zeros(20, 20, dtype=torch.bool)
    shown = robust_range([all_valid(near), all_valid(far), hidden])
    assert shown.low < 1.1 and 8.9 < shown.high < 10
    assert robust_range([hidden]) == DepthRange(0.0, 1.0) == robust_range([])
    flat = robust_range([all_valid(near)])
    assert flat.low < 1 < flat.high


def test_equal_depths_have_equal_colours_in_all_frames_and_unknown_ones_are_grey_squares():
    shown = DepthRange(1.0, 5.0)
    one = depth_picture(*all_valid(torch.tensor([[1.0, 3.0, 5.0]])), shown)
    other = depth_picture(*all_valid(torch.tensor([[0.0, 3.0, 9.0]])), shown)
    assert torch.equal(one, other)
    depths = torch.full((16, 16), 2.0)
    depths[0, 0] = float("nan")
    valid = torch.ones(16, 16, dtype=torch.bool)
    valid[8:] = False
    picture = depth_picture(depths, valid, DepthRange(1.0, 3.0))
    grey = (picture.amax(0) - picture.amin(0)) < 1e-6
    assert torch.equal(grey[8:], torch.ones(8, 16, dtype=torch.bool)) and grey[0, 0]
    assert not grey[:8].flatten()[1:].any() and len(picture[0, 8:].unique()) == 2


@pytest.mark.parametrize("height", [1, 8, 23, 24, 128, 512])
def test_the_bar_has_the_colours_of_the_map_and_numbers_if_there_is_room(height):
    shown = DepthRange(2.1, 4.5)
    bar = color_bar(height, shown, LengthUnit("mm", 200.0))
    assert bar.shape[:2] == (3, height) and bar.shape[2] < 110
    if height < 24:
        assert torch.equal(bar, bar[:, :, :1].expand_as(bar)) and not (bar == 1).all(0).any()
        return
    ends = depth_picture(*all_valid(torch.tensor([[2.1, 4.5]])), shown)
    for end in (ends[:, 0, 0], ends[:, 0, 1]):
        assert ((bar[:, :, 4] - end[:, None]).abs().amax(0) < 0.02).any()
    assert (bar < 0.1).all(0).any(), "numbers are written on it"


def test_rows_of_a_sheet_are_aligned_in_columns():
    red, green, blue = plain(20, 40, 1, 0, 0), plain(20, 60, 0, 1, 0), plain(10, 40, 0, 0, 1)
    sheet = contact_sheet([[red, None, green], [blue, blue]])
    # The middle column is as wide as its widest picture, the second row as high as its own.
    assert sheet.shape == (3, 20 + 3 + 10, 40 + 3 + 40 + 3 + 60)
    assert sheet[:, 5, 5].tolist() == [1, 0, 0] and sheet[:, 5, 100].tolist() == [0, 1, 0]
    assert sheet[:, 25, 5].tolist() == sheet[:, 25, 50].tolist() == [0, 0, 1]
    assert (sheet[:, :20, 40:86] == 1).all() and (sheet[:, 23:, 83:] == 1).all()


def test_labels_stand_above_and_shrink_to_fit():
    sheet = contact_sheet([[plain(20, 60, 0, 0, 0, label="view 12"), plain(20, 60, 0, 0, 0)]])
    assert sheet.shape[1] > 20 and (sheet[:, -20:, :60] == 0).all()
    assert (sheet[:, :-20, :60] < 0.5).any() and (sheet[:, :-20, 60:] == 1).all()
    for text in ("short", "much too long for sixty pixels"):
        ink = (label_strip(text, 160, 13) < 0.5).any(0).any(0).nonzero()
        assert ink.min() > 0 and ink.max() < 159 - 1


def test_a_path_is_drawn_in_its_colours():
    c2w = torch.eye(4).repeat(6, 1, 1)
    c2w[:, 0, 3] = torch.arange(6.0)
    cameras = Cameras(torch.tensor([[50.0, 0, 40], [0, 50, 30], [0, 0, 1]]).expand(6, 3, 3), c2w)
    path = Cameras(cameras.intrinsics[:4], c2w[:4].clone())
    path.c2w[:, 1, 3] = 0.5
    figure = plot_cameras(cameras, (60, 80), path, UP, torch.tensor([1.0, 0, 5]))
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    for colour in ((214, 39, 40), (255, 127, 14), (31, 119, 180)):
        assert (np.abs(pixels - colour).sum(-1) < 30).any(), colour
    assert plot_cameras(cameras[:1], (60, 80), path[:1], UP, 1e6 * UP).axes
