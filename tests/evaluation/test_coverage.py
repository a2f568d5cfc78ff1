"""Pixels that two sources see are told apart from those that none can know."""

import pytest
import torch

from datasets.protocols import Region
from evaluation.coverage import seen_by_sources
from evaluation.scores import ViewImages, view_scores
from utils.cameras import Cameras

SIZE = (8, 10)


def camera(x):
    intrinsics = torch.tensor([[10.0, 0, 5], [0, 10.0, 4], [0, 0, 1]])
    c2w = torch.eye(4)
    c2w[0, 3] = x
    return Cameras(intrinsics, c2w)


def both(*cameras):
    pairs = [(each.intrinsics, each.c2w) for each in cameras]
    return Cameras(*(torch.stack(parts) for parts in zip(*pairs, strict=True)))


def test_a_pixel_is_seen_where_two_sources_hold_its_surface():
    """A wall 10 away: a source at x = 3 sees it three pixels further to the left."""
    depth = torch.full(SIZE, 10.0)
    seen = seen_by_sources(depth, camera(0.0), both(camera(3.0), camera(-2.0)), SIZE)
    assert seen.all(0).tolist() == [False] * 3 + [True] * 5 + [False] * 2
    assert torch.equal(seen, seen.all(0).expand(SIZE))
    third = both(camera(3.0), camera(-2.0), camera(0.0))
    assert seen_by_sources(depth, camera(0.0), third, SIZE).all()


def test_one_source_must_see_alone():
    depth = torch.full(SIZE, 10.0)
    assert seen_by_sources(depth, camera(0.0), both(camera(3.0)), SIZE)[:, 3:].all()


def test_the_score_counts_what_is_seen():
    rgb, truth = torch.zeros(3, *SIZE), torch.zeros(3, *SIZE)
    rgb[:, :, 0] = 1.0
    nothing, whole = torch.zeros(SIZE), torch.ones(SIZE, dtype=torch.bool)
    images = ViewImages(rgb, nothing, nothing, truth, nothing, whole)
    seen = whole.clone()
    seen[:, 0] = False
    scores = view_scores(images, Region(), seen=seen)
    assert scores["psnr"] == pytest.approx(10.0) and scores["seen_psnr"] == 100.0
    assert scores["seen_share"] == pytest.approx(0.9)
    assert view_scores(images, Region(), seen=~whole)["seen_psnr"] is None
