from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.protocols import DTU_POOL, DTU_TARGETS
from datasets.views import Views
from models.vggt.network import VGGTPrediction
from models.vggt.pose_encoding import encode_pose
from training.vggt.real_evaluation import (
    evaluate_scene,
    mean_summary,
    network_views,
    summarize,
)
from training.vggt.real_scenes import RealScene, dtu_scenes, plan_groups, split_spec
from utils.cameras import Cameras, pixel_directions, project, rotate
from utils.errors import UserError


def centers_in_a_row(count):
    return {view: torch.tensor([float(view), 0.0, 0.0]) for view in range(count)}


def tell_the_truth(views: Views) -> VGGTPrediction:
    """Return what a perfect network would: in the frame of the first view, in its own unit."""
    frame = views.cameras.w2c[:, :1]
    cameras = Cameras(views.cameras.intrinsics, frame @ views.cameras.c2w).scaled_world(0.37)
    depth = 0.37 * views.depths[..., None]
    confidence = torch.ones_like(views.depths)
    return VGGTPrediction(
        pose_enc=encode_pose(cameras, *views.size), depth=depth, depth_conf=confidence
    )


@pytest.fixture
def scene(tiny_dtu) -> RealScene:
    return dtu_scenes(f"{tiny_dtu}:scan1", 4)[0]


def test_targets_are_spread_and_joined_by_their_nearest_views():
    groups = plan_groups("row", centers_in_a_row(16), 3)
    assert [group[0] for group in groups] == [2, 6, 10, 14]
    assert all(set(group) == {group[0] - 1, group[0], group[0] + 1} for group in groups)


def test_named_targets_take_their_views_from_the_pool():
    groups = plan_groups("row", centers_in_a_row(9), 3, targets=(4,), pool=(0, 1, 8))
    assert groups == ((4, 1, 0),)


def test_all_views_may_make_one_group():
    assert {len(group) for group in plan_groups("row", centers_in_a_row(3), 3)} == {3}


@pytest.mark.parametrize(
    ("count", "targets", "words"),
    [(3, (), "3 views.*groups of 4.*--views"), (9, (4, 9), "no view 9.*from 0 to 8")],
)
def test_groups_that_cannot_be_formed_are_refused(count, targets, words):
    with pytest.raises(UserError, match=f"row: .*{words}"):
        plan_groups("row", centers_in_a_row(count), 4, targets)


def test_a_colon_separates_names_from_the_folder(tmp_path):
    odd = tmp_path / "a:b"
    odd.mkdir()
    assert split_spec(f"{tmp_path}/x:scan1,scan2") == (tmp_path / "x", ["scan1", "scan2"])
    assert split_spec(str(tmp_path)) == (tmp_path, [])
    assert split_spec(str(odd)) == (odd, [])


def test_scans_of_a_list_or_by_name(tiny_dtu):
    assert [scene.name for scene in dtu_scenes(str(tiny_dtu), 4)] == ["scan2"]
    scenes = dtu_scenes(f"{tiny_dtu}:scan2,scan1", 5)
    assert [scene.name for scene in scenes] == ["scan2", "scan1"]
    assert {len(group) for scene in scenes for group in scene.groups} == {5}


def test_the_truth_is_perfect_and_knowing_nothing_is_not(scene):
    results = list(evaluate_scene(tell_the_truth, scene, side=56, patch=14))
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


def test_pictures_shrink_with_their_cameras_and_depth(scene):
    native = scene.load_views(scene.groups[0])
    small = network_views(native, side=56, patch=14)
    assert small.images.shape == (1, 4, 3, 42, 56)
    assert small.images.mean() == pytest.approx(float(native.images.mean()), abs=0.01)
    # A point of the world falls on the same place of the picture, where it has the same depth.
    place = torch.tensor([[30.5, 20.5]]).expand(4, 1, 2)
    depth = native.depths[:, 20, 30, None]
    rays = rotate(pixel_directions(place, native.cameras.intrinsics), native.cameras)
    points = native.cameras.centers[:, None] + rays * depth[..., None]
    pixels, _ = project(points, small.cameras[0])
    expected = place * torch.tensor([56 / 80, 42 / 64])
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-3)
    column, row = expected[0, 0].long()
    assert torch.allclose(small.depths[0, :, row, column], depth[:, 0], rtol=0.02)


def known_points(scene, views_of_points, noise=0.0):
    """Give the views points of their depth maps in place of the maps."""

    def without_depth(ids):
        views = scene.load_views(ids)
        return Views(views.images, views.cameras, torch.zeros_like(views.depths), views.masks)

    points = {}
    for view in views_of_points:
        one = scene.load_views([view])
        pixels = torch.tensor([[10.5, 10.5], [40.5, 30.5], [60.5, 50.5], [25.5, 45.5]])
        depths = one.depths[0][pixels[:, 1].long(), pixels[:, 0].long()]
        rays = rotate(pixel_directions(pixels, one.cameras.intrinsics[0]), one.cameras[0])
        points[view] = one.cameras.centers[0] + rays * depths[:, None] + noise
    return RealScene(scene.name, scene.groups[:1], without_depth, points)


def truth_of(scene):
    def predict(views: Views) -> VGGTPrediction:
        full = network_views(scene.load_views(scene.groups[0]), max(views.size), 14)
        return tell_the_truth(full)

    return predict


def test_depth_is_judged_at_the_points_that_a_view_saw(scene):
    target, other = scene.groups[0][:2]
    sparse = known_points(scene, [target, other])
    (result,) = evaluate_scene(truth_of(scene), sparse, side=56, patch=14)
    assert result.reference == "COLMAP points"
    assert len(result.errors.depth_ratios) == 8
    assert summarize([result.errors])["abs_rel"] == pytest.approx(0, abs=0.02)
    assert summarize([result.trivial])["abs_rel"] > 0.02


def test_points_of_another_world_are_not_used(scene, caplog):
    astray = known_points(scene, scene.groups[0], noise=50.0)
    (result,) = evaluate_scene(truth_of(scene), astray, side=56, patch=14)
    assert result.reference == "triangulated matches"
    assert "scan1: COLMAP's points are not used" in caplog.text


def test_without_reference_there_are_no_figures_of_depth(scene):
    def in_the_dark(ids):
        views = scene.load_views(ids)
        nothing = torch.zeros_like(views.depths)
        return Views(torch.zeros_like(views.images), views.cameras, nothing, views.masks)

    dark = RealScene(scene.name, scene.groups[:1], in_the_dark, {})
    (result,) = evaluate_scene(truth_of(scene), dark, side=56, patch=14)
    summary = summarize([result.errors])
    assert summary["auc_5"] == 1.0 and summary["abs_rel"] is None
    other = summary | {"abs_rel": 0.5, "auc_5": 0.0}
    mean = mean_summary([summary, other])
    assert mean["abs_rel"] == 0.5 and mean["auc_5"] == 0.5 and mean["within_103"] is None


def test_the_protocol_chooses_the_groups_of_whole_scans(tmp_path, tiny_scene, write_dtu_scene):
    repeated = [np.concatenate([part] * 7)[:49] for part in (tiny_scene.images, tiny_scene.w2c)]
    whole = replace(tiny_scene, images=repeated[0], w2c=repeated[1], depths=None)
    write_dtu_scene(tmp_path, "scan7", whole)
    (scene,) = dtu_scenes(f"{tmp_path}:scan7", 4)
    assert tuple(group[0] for group in scene.groups) == DTU_TARGETS
    assert all(set(group[1:]) <= set(DTU_POOL) for group in scene.groups)
