"""The evaluation on photographs with known cameras."""

from dataclasses import replace

import pytest
import torch

from benchmarks.backbone_real_scenes import dtu_scenes
from benchmarks.real_scenes import RealScene, evaluate_scene, mean_summary, network_views, summarize
from models.vggt.network import VGGTPrediction
from models.vggt.pose_encoding import encode_pose
from utils.cameras import Cameras, project, unproject


def true_prediction(views):
    """Return what a perfect network would: in the frame of the first view, in its own unit."""
    frame = views.cameras.w2c[:, :1]
    cameras = Cameras(views.cameras.intrinsics, frame @ views.cameras.c2w).scaled_world(0.37)
    return VGGTPrediction(
        pose_enc=encode_pose(cameras, *views.size),
        depth=0.37 * views.depths[..., None],
        depth_conf=torch.ones_like(views.depths),
    )


@pytest.fixture
def real(tiny_dtu):
    return dtu_scenes(f"{tiny_dtu}:scan1", 4)[0]


def without_depth(scene, brightness=1.0):
    def read_view(view):
        pixels = scene.read_view(view)
        return replace(pixels, image=brightness * pixels.image, depth=0 * pixels.depth)

    return replace(scene, read_view=read_view)


def with_points(real, views, noise=0.0):
    """Give some views points of their depth maps in place of the maps."""
    points = {}
    for view in views:
        one = real.scene.load_views([view])
        pixels = torch.tensor([[10.5, 10.5], [40.5, 30.5], [60.5, 50.5], [25.5, 45.5]])
        depths = one.depths[0][pixels[:, 1].long(), pixels[:, 0].long()]
        points[view] = unproject(pixels, depths, one.cameras[0]) + noise
    return RealScene(without_depth(real.scene), real.groups[:1], points)


def result_of(changed, real):
    """Evaluate the true prediction on a scene whose depth is hidden from the evaluation."""

    views = network_views(real.scene.load_views(real.groups[0]), 56, 14)
    (result,) = evaluate_scene(lambda _: true_prediction(views), changed, side=56, patch=14)
    return result


def test_the_truth_is_perfect_and_the_trivial_prediction_is_not(real):
    results = list(evaluate_scene(true_prediction, real, side=56, patch=14))
    assert [result.reference for result in results] == ["depth maps"] * 4
    assert results[0].views.size == (42, 56)
    truth = summarize([result.errors for result in results])
    assert (truth["auc_5"], truth["auc_30"]) == (1.0, 1.0)
    assert (truth["within_103"], truth["within_125"]) == (1.0, 1.0)
    for name in ("rotation_median", "direction_median", "focal_median", "abs_rel"):
        assert truth[name] == pytest.approx(0, abs=0.01), name
    trivial = summarize([result.trivial for result in results])
    assert trivial["auc_30"] == 0 and trivial["direction_median"] == pytest.approx(90)
    assert trivial["abs_rel"] > 0.03 and trivial["focal_median"] > 0.05


def test_pictures_shrink_with_their_cameras_and_depth(real):
    native = real.scene.load_views(real.groups[0])
    small = network_views(native, side=56, patch=14)
    assert small.images.shape == (1, 4, 3, 42, 56)
    assert small.images.mean() == pytest.approx(float(native.images.mean()), abs=0.01)
    # A point of the world falls on the same place of the picture, where it has the same depth.
    place = torch.tensor([[30.5, 20.5]]).expand(4, 1, 2)
    depth = native.depths[:, 20, 30, None]
    pixels, _ = project(unproject(place, depth, native.cameras), small.cameras[0])
    expected = place * torch.tensor([56 / 80, 42 / 64])
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-3)
    column, row = expected[0, 0].long()
    assert torch.allclose(small.depths[0, :, row, column], depth[:, 0], rtol=0.02)


def test_depth_is_compared_at_the_points_that_a_view_saw(real):
    result = result_of(with_points(real, real.groups[0][:2]), real)
    assert result.reference == "COLMAP points"
    assert len(result.errors.depth_ratios) == 8
    assert summarize([result.errors])["abs_rel"] == pytest.approx(0, abs=0.02)
    assert summarize([result.trivial])["abs_rel"] > 0.02


def test_points_of_another_world_are_not_used(real, caplog):
    result = result_of(with_points(real, real.groups[0], noise=50.0), real)
    assert result.reference == "triangulated matches"
    assert "scan1: COLMAP's points are not used" in caplog.text


def test_without_reference_there_are_no_figures_of_depth(real):
    dark = RealScene(without_depth(real.scene, brightness=0.0), real.groups[:1], {})
    summary = summarize([result_of(dark, real).errors])
    assert summary["auc_5"] == 1.0 and summary["abs_rel"] is None
    mean = mean_summary([summary, summary | {"abs_rel": 0.5, "auc_5": 0.0}])
    assert mean["abs_rel"] == 0.5 and mean["auc_5"] == 0.5 and mean["within_103"] is None
