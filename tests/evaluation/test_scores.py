"""Figures of one view against what can be computed by hand, and at their extremes."""

import dataclasses
from typing import Any

import pytest
import torch
from skimage.metrics import structural_similarity

from datasets.protocols import Region
from evaluation.scores import (
    MAX_PSNR,
    SCORES,
    ViewImages,
    describe_region,
    mean_depth_error,
    psnr,
    view_scores,
)


def psnr_of(images, region):
    return view_scores(images, region)["psnr"]


def view(height=20, width=30, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(3, height, width, generator=generator)
    images = ViewImages(
        rgb=0.9 * truth + 0.1,
        depth=torch.full((height, width), 2.0),
        opacity=torch.full((height, width), 0.5),
        true_rgb=0.9 * truth,
        true_depth=torch.zeros(height, width),
        mask=torch.ones(height, width, dtype=torch.bool),
    )
    return dataclasses.replace(images, **changes)


def test_psnr_of_a_batch_by_hand_and_masked():
    truth = torch.zeros(2, 3, 2, 2)
    prediction = truth.clone()
    prediction[:, :, 0, 0] = 0.1
    whole = torch.full((2,), 26.0206)
    torch.testing.assert_close(psnr(prediction, truth), whole, rtol=1e-5, atol=0)
    mask = torch.zeros(2, 2, 2, dtype=torch.bool)
    assert psnr(prediction, truth, mask).isnan().all()
    mask[:, 0, 0] = True
    torch.testing.assert_close(psnr(prediction, truth, mask), torch.full((2,), 20.0))


def test_depth_error_counts_known_depth_only():
    truth = torch.tensor([[[0.0, 2.0], [4.0, 0.0]]])
    prediction = torch.tensor([[[9.0, 2.5], [3.0, 9.0]]])
    torch.testing.assert_close(mean_depth_error(prediction, truth), torch.tensor([0.75]))
    assert mean_depth_error(prediction, torch.zeros(1, 2, 2)).isnan().all()


def test_psnr_by_hand_and_predictions_are_clamped():
    assert psnr_of(view(), Region()) == pytest.approx(20.0, abs=1e-4)
    white = torch.ones(3, 20, 30)
    bright = view(rgb=white + 5, true_rgb=white)
    assert psnr_of(bright, Region()) == MAX_PSNR


def test_only_pixels_with_true_depth_count_and_the_rest_is_black_for_ssim():
    images = view()
    depth = torch.zeros(20, 30)
    depth[:, :15] = 2.0
    wrong = images.rgb.clone()
    wrong[:, :, 15:] = 0.0
    images = dataclasses.replace(images, rgb=wrong, true_depth=depth)
    scores = view_scores(images, Region(known_depth_only=True))
    assert scores["psnr"] == pytest.approx(20.0, abs=1e-4)
    black = [torch.where(depth > 0, image, 0.0) for image in (images.rgb, images.true_rgb)]
    pair = [image.permute(1, 2, 0).numpy() for image in black]
    expected: Any = structural_similarity(*pair, channel_axis=-1, data_range=1.0)
    assert scores["ssim"] == pytest.approx(expected, abs=1e-5)
    assert psnr_of(images, Region()) < 10


def test_without_any_true_depth_the_full_frame_counts_and_it_is_said():
    masked = Region(known_depth_only=True)
    assert view_scores(view(), masked) == view_scores(view(), Region())
    assert describe_region(view(), masked) == "full frame"
    some = view(true_depth=torch.ones(20, 30))
    assert describe_region(some, masked) == "pixels with true depth"
    partly = torch.ones(20, 30, dtype=torch.bool)
    partly[0] = False
    assert describe_region(view(mask=partly), masked) == "pixels inside the mask"


def test_border_is_a_share_of_every_side():
    images = view(40, 30)
    spoilt = images.rgb.clone()
    spoilt[:, :4] = spoilt[:, -4:] = spoilt[:, :, :3] = spoilt[:, :, -3:] = 0
    images = dataclasses.replace(images, rgb=spoilt)
    assert psnr_of(images, Region(border=0.1)) == pytest.approx(20.0, abs=1e-4)
    assert describe_region(images, Region(border=0.1)) == "full frame, 10% border left out"
    spoilt[:, 4] = 0
    assert psnr_of(images, Region(border=0.1)) < 19


def test_depth_errors_and_shares():
    truth = torch.zeros(2, 4)
    truth[0] = torch.tensor([2.0, 2.005, 2.03, 2.5])
    scores = view_scores(view(2, 4, depth=torch.full((2, 4), 2.0), true_depth=truth), Region())
    assert scores["depth_abs_err"] == pytest.approx(0.535 / 4, abs=1e-6)
    relative = (0.005 / 2.005 + 0.03 / 2.03 + 0.5 / 2.5) / 4
    assert scores["depth_rel_err"] == pytest.approx(relative, abs=1e-6)
    assert [scores[f"depth_within_{limit}"] for limit in (0.01, 0.05, 0.1)] == [0.5, 0.75, 0.75]


def test_opacity_of_empty_space_is_known_only_with_complete_depth():
    truth = torch.ones(20, 30)
    truth[:5] = 0
    opacity = torch.ones(20, 30)
    opacity[:5] = 0.25
    images = view(opacity=opacity, true_depth=truth)
    assert view_scores(images, Region())["empty_opacity"] is None
    complete = Region(depth_is_complete=True)
    assert view_scores(images, complete)["empty_opacity"] == 0.25
    full = view(true_depth=torch.ones(20, 30))
    assert view_scores(full, complete)["empty_opacity"] is None


def test_nothing_to_count_gives_no_figures_rather_than_nan():
    nothing = view(mask=torch.zeros(20, 30, dtype=torch.bool))
    scores = view_scores(nothing, Region(), perceptual=lambda *_: pytest.fail("asked"))
    assert scores == dict.fromkeys(SCORES)


def test_perceptual_distance_sees_what_ssim_sees():
    def perceptual(*images):
        assert all((image[..., :10, :] == 0).all() for image in images)
        return torch.tensor([0.5])

    mask = torch.ones(20, 30, dtype=torch.bool)
    mask[:10] = False
    assert view_scores(view(mask=mask), Region(), perceptual)["lpips"] == 0.5
