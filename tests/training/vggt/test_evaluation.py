"""Depth and camera errors, and those of the weights that ship."""

from math import radians
from pathlib import Path

import pytest
import torch

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralGenerator
from models.vggt.network import VGGT
from training.vggt.evaluation import (
    area_under_curve,
    depth_ratios,
    geometry_metrics,
    pair_errors,
    predict_geometry,
    trivial_prediction,
)
from training.vggt.losses import geometry_targets
from utils.cameras import Cameras

SHIPPED = Path(__file__).parents[3] / "ckpts" / "vggt-mini"


def camera_errors(predicted, truth):
    """Return the larger of rotation and direction error of all pairs, in degrees."""
    return torch.maximum(*pair_errors(predicted, truth))


def turned(axis, degrees):
    transform = torch.eye(4)
    angle = torch.tensor(radians(degrees))
    first, second = axis
    transform[first, first] = transform[second, second] = angle.cos()
    transform[second, first] = angle.sin()
    transform[first, second] = -angle.sin()
    return transform


def cameras(*c2w: torch.Tensor):
    stacked = torch.stack(c2w)[None]
    return Cameras(torch.eye(3).expand(1, len(c2w), 3, 3), stacked)


def at(transform, *center: float):
    moved = transform.clone()
    moved[:3, 3] = torch.tensor(center)
    return moved


def test_the_truth_is_perfect_in_any_frame_and_unit_and_the_trivial_prediction_is_not(views):
    targets = geometry_targets(views)
    metrics = geometry_metrics(3 * targets.depth, targets.pose_enc, views)
    assert metrics["abs_rel"] == pytest.approx(0, abs=1e-5)
    for name in ("within_103", "within_125", "auc_5", "auc_30"):
        assert metrics[name] == 1
    trivial = geometry_metrics(*trivial_prediction(views), views)
    assert trivial["abs_rel"] > 0.01 and trivial["auc_30"] == 0


def test_depth_measures_by_hand():
    truth = torch.tensor([[1.0, 2.0, 4.0, 9.0]])
    depth = torch.tensor([[3.0, 4.0, 8.0, 9.0]])
    valid = torch.tensor([[True, True, True, False]])
    # Medians 2 and 4: the factor is 1/2.
    expected = torch.tensor([[1.5, 1.0, 1.0, 1.0]])
    torch.testing.assert_close(depth_ratios(depth, truth, valid), expected)
    assert (depth_ratios(depth, truth, torch.zeros_like(valid)) == 1).all()


@pytest.mark.parametrize(
    ("rotation", "direction", "expected"),
    [
        *((degrees, 0.0, degrees) for degrees in (0.0, 0.01, 3.0, 90.0, 179.0)),
        # Length and sign do not count.
        *((0.0, degrees, expected) for degrees, expected in ((20.0, 20.0), (180.0, 0.0))),
    ],
)
def test_pair_errors_by_hand(rotation, direction, expected):
    truth = cameras(torch.eye(4), at(torch.eye(4), 1.0, 0.0, 0.0))
    # Turning the first camera leaves the pair's translation, as the second sees it, as it is.
    center = (turned((0, 1), direction)[:3, 0] * 7).tolist()
    predicted = cameras(turned((0, 1), rotation), at(torch.eye(4), *center))
    assert camera_errors(predicted, truth).item() == pytest.approx(expected, rel=1e-4, abs=1e-3)
    none = cameras(torch.eye(4), torch.eye(4))
    assert camera_errors(none, truth).item() == pytest.approx(90)


def test_all_pairs_count_and_the_frame_does_not():
    c2w = [at(turned((0, 2), 10.0 * i), 1.0 * i, 0.5, 0.1 * i) for i in range(4)]
    truth = cameras(*c2w)
    moved = cameras(*[at(turned((1, 2), 40.0), 3.0, 1.0, 2.0) @ transform for transform in c2w])
    errors = camera_errors(moved, truth)
    assert errors.shape == (1, 6)
    assert errors.max() < 0.05


def test_area_under_curve_by_hand():
    errors = torch.tensor([[0.5, 2.5, 40.0, 29.5]])
    # Below 1, 2, ..., 5 degrees: 1, 1, 2, 2, 2 of 4 pairs.
    torch.testing.assert_close(area_under_curve(errors, 5), torch.tensor([8 / 20]))
    torch.testing.assert_close(area_under_curve(errors, 30), torch.tensor([(30 + 28 + 1) / 120]))


def test_shipped_weights_beat_the_trivial_prediction_on_scenes_never_trained_on():
    generator = ProceduralGenerator(ProceduralConfig(samples=1), "cpu")
    held_out = generator.sample(range(12), 3, (112, 140), 0.3).views
    network = VGGT.from_pretrained(SHIPPED)
    ours = geometry_metrics(*predict_geometry(network, held_out), held_out)
    trivial = geometry_metrics(*trivial_prediction(held_out), held_out)
    assert ours["abs_rel"] < 0.6 * trivial["abs_rel"]
    assert ours["auc_30"] > 0.3
    for views in (1, 5):
        with torch.no_grad():
            seen = network(torch.rand(1, views, 3, 112, 140), heads=("camera", "depth"))
        assert seen.depth.isfinite().all() and (seen.depth > 0).all()
        assert seen.pose_enc.isfinite().all()


def test_shipped_weights_fit_into_sixteen_mebibytes():
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) <= 16 * 2**20
