"""Depth pictures that can be compared."""

import pytest
import torch

from utils.depth_pictures import DepthRange, LengthUnit, color_bar, depth_picture, robust_range


def everything(depths):
    return depths, torch.ones_like(depths, dtype=torch.bool)


def test_single_wrong_pixels_do_not_decide_about_the_range():
    depths = torch.linspace(2, 4, 10_000).reshape(100, 100)
    depths[0, :5] = torch.tensor([1e6, float("inf"), float("nan"), 0.0, -3.0])
    shown = robust_range([everything(depths)])
    assert 1.9 < shown.low < 2.05 and 3.95 < shown.high < 4.1


def test_all_frames_count_and_invalid_pixels_do_not():
    near, far = torch.full((20, 20), 1.0), torch.full((20, 20), 9.0)
    hidden = torch.full((20, 20), 50.0), torch.zeros(20, 20, dtype=torch.bool)
    shown = robust_range([everything(near), everything(far), hidden])
    assert shown.low < 1.1 and 8.9 < shown.high < 10
    assert robust_range([hidden]) == DepthRange(0.0, 1.0) == robust_range([])
    flat = robust_range([everything(near)])
    assert flat.low < 1 < flat.high


def test_equal_depths_have_equal_colours_in_all_frames():
    shown = DepthRange(1.0, 5.0)
    one = depth_picture(*everything(torch.tensor([[1.0, 3.0, 5.0]])), shown)
    other = depth_picture(*everything(torch.tensor([[3.0, 9.0, 0.0]])), shown)
    assert torch.equal(one[:, 0, 1], other[:, 0, 0])
    assert torch.equal(one[:, 0, 2], other[:, 0, 1]) and torch.equal(one[:, 0, 0], other[:, 0, 2])


def test_pixels_without_a_depth_are_grey_squares():
    depths = torch.full((16, 16), 2.0)
    depths[0, 0] = float("nan")
    valid = torch.ones(16, 16, dtype=torch.bool)
    valid[8:] = False
    picture = depth_picture(depths, valid, DepthRange(1.0, 3.0))
    grey = (picture.amax(0) - picture.amin(0)) < 1e-6
    assert torch.equal(grey[8:], torch.ones(8, 16, dtype=torch.bool)) and grey[0, 0]
    assert not grey[:8].flatten()[1:].any() and len(picture[0, 8:].unique()) == 2


@pytest.mark.parametrize("height", [24, 128, 512])
def test_the_bar_has_the_colours_of_the_map(height):
    shown = DepthRange(2.1, 4.5)
    bar = color_bar(height, shown, LengthUnit("mm", 200.0))
    assert bar.shape[:2] == (3, height) and bar.shape[2] < 110
    ends = depth_picture(*everything(torch.tensor([[2.1, 4.5]])), shown)
    column = bar[:, :, 4]
    for end in (ends[:, 0, 0], ends[:, 0, 1]):
        assert ((column - end[:, None]).abs().amax(0) < 0.02).any()
    assert (bar < 0.1).all(0).any(), "numbers are written on it"


@pytest.mark.parametrize("height", [1, 8, 16, 23])
def test_a_bar_too_low_for_numbers_has_colours_only(height):
    bar = color_bar(height, DepthRange(2.1, 4.5), LengthUnit("mm", 200.0))
    assert bar.shape[:2] == (3, height)
    assert torch.equal(bar, bar[:, :, :1].expand_as(bar)) and not (bar == 1).all(0).any()
