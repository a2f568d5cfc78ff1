"""The common container of single scenes, and what readers check, on cameras seen by eye."""

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from dots import arc_poses

from datasets.formats.checks import check_pinhole, rigid_poses
from datasets.formats.depth_range import checked_near_far, estimate_near_far
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from datasets.posed_scene import PosedScene, ViewPixels
from utils.cameras import Cameras
from utils.errors import UserError

UNKNOWN = r"no view 5; its views are 0 to 4"
CENTERS = [[0.0, 0, 0], [1.0, 0, 0], [0.9, 0.9, 0], [-1.0, 0, 0], [0, 0, 0.5]]


def read_constant(view):
    """Pixels that show which view they belong to."""
    return ViewPixels(
        image=np.full((4, 6, 3), view / 10, np.float32),
        depth=np.full((4, 6), view, np.float32),
        mask=np.full((4, 6), view % 2 == 0),
    )


@pytest.fixture
def scene():
    c2w = torch.eye(4).repeat(5, 1, 1)
    c2w[:, :3, 3] = torch.tensor(CENTERS)
    intrinsics = torch.diag(torch.tensor([5.0, 5.0, 1.0])).repeat(5, 1, 1)
    intrinsics[:, 0, 2] = torch.arange(5)
    return PosedScene(
        name="row",
        view_ids=tuple(range(5)),
        view_names=tuple(f"{view}.png" for view in range(5)),
        cameras=Cameras(intrinsics, c2w),
        near_far=torch.tensor([1.0, 2.0]),
        image_size=(4, 6),
        read_view=read_constant,
    )


def test_nearest_is_by_the_files_then_l1_distance_and_ties_by_id(scene):
    # View 2 is nearer than 1 by no norm but the largest coordinate; 1 and 3 are equally near.
    assert scene.nearest(0, scene.view_ids, 4) == (4, 1, 3, 2)
    assert scene.nearest(0, [3, 1], 2) == (1, 3)
    assert scene.nearest(0, [3, 3, 0, 2], 2) == (3, 2)
    known = replace(scene, neighbours={0: [2, 7, 3]})
    assert known.ranked_neighbours(0)[:2] == (2, 3)
    assert sorted(known.ranked_neighbours(0)) == [1, 2, 3, 4]


def test_load_views_keeps_order_and_belongings(scene):
    views = scene.load_views([3, 1])
    assert views.images.shape == (2, 3, 4, 6)
    assert views.images.is_contiguous()
    torch.testing.assert_close(views.images[:, 0, 0, 0], torch.tensor([0.3, 0.1]))
    torch.testing.assert_close(views.cameras.intrinsics[:, 0, 2], torch.tensor([3.0, 1.0]))
    torch.testing.assert_close(views.cameras.centers[0], torch.tensor(CENTERS[3]))
    torch.testing.assert_close(views.depths[:, 0, 0], torch.tensor([3.0, 1.0]))
    assert not views.masks.any() and not scene.training_views([3]).masks.any()
    assert replace(scene, masks_for_tests_only=True).training_views([3]).masks.all()


def test_sample_takes_the_nearest_sources(scene):
    sample = scene.sample(0, [1, 2, 3, 4], 2)
    assert (sample.scene, sample.source_ids, sample.target_ids) == ("row", (4, 1), (0,))
    torch.testing.assert_close(sample.sources.depths[:, 0, 0], torch.tensor([4.0, 1.0]))
    assert sample.targets.images.shape == (1, 3, 4, 6)
    torch.testing.assert_close(sample.near_far, scene.near_far)
    sample.near_far[0] = 7.0
    assert scene.near_far[0] == 1.0


@pytest.mark.parametrize(
    ("method", "given", "problem"),
    [
        *(
            (
                "nearest",
                (1, [0, 1, 2], count),
                f"'row': view 1 needs {count} sou.*choose 1 to",
            )
            for count in (0, 3, -1)
        ),
        ("load_views", ([0, 5],), UNKNOWN),
        ("nearest", (5, [0, 1], 1), UNKNOWN),
        ("sample", (0, [1, 5], 1), UNKNOWN),
    ],
)
def test_views_that_are_not_there(scene, method, given, problem):
    with pytest.raises(UserError, match=problem):
        getattr(scene, method)(*given)


def test_taken_views_keep_what_belongs_together(make_views):
    views = make_views(2, 3)
    views = replace(views, depths=torch.rand(2, 3, 32, 40), masks=torch.rand(2, 3, 32, 40) > 0.5)
    taken = views.take([2, 0])
    for part in ("images", "depths", "masks"):
        assert torch.equal(getattr(taken, part), getattr(views, part)[:, [2, 0]])
    assert torch.equal(taken.cameras.c2w, views.cameras.c2w[:, [2, 0]])
    assert torch.equal(taken.cameras.intrinsics, views.cameras.intrinsics[:, [2, 0]])


def orbit():
    """Cameras on a circle of radius 4 that look at the origin."""
    return Cameras(torch.eye(3).repeat(6, 1, 1), torch.tensor(arc_poses(6)).float())


def test_estimated_range_lies_about_the_focus():
    expected = torch.tensor([0.3 * 4, 2.5 * 4])
    torch.testing.assert_close(estimate_near_far(orbit(), "x.json"), expected)
    shifted = orbit()
    shifted.c2w[:, :3, 3] += torch.tensor([100.0, -50.0, 20.0])
    torch.testing.assert_close(estimate_near_far(shifted, "x.json"), expected, rtol=1e-3, atol=0)


def test_no_range_without_a_common_focus(scene):
    parallel, outward, panorama = scene.cameras[[0, 1, 2]], orbit(), orbit()
    outward.c2w[:, :3, [0, 2]] *= -1
    panorama.c2w[:, :3, 3] = 0
    for cameras in (parallel, outward, panorama, parallel[:1]):
        with pytest.raises(UserError, match=r"x\.json.*common point.*Give near and far"):
            estimate_near_far(cameras, "x.json")


def test_impossible_ranges_and_sizes(tmp_path):
    for near, far in (
        *((0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (-2.0, -1.0), (1.0, 1e300), (1e-300, 1.0)),
        *((float("nan"), 2.0), (1.0, float("inf"))),
    ):
        with pytest.raises(UserError, match=r"x\.json: near is .* 0 < near < far"):
            checked_near_far(near, far, "x.json")
    for size in ((0, 5), (5, -1), (5, 1 << 20)):
        with pytest.raises(UserError, match=rf"resized to {size[1]}x{size[0]}"):
            open_scene("llff", tmp_path, ReadOptions(size))


@pytest.mark.parametrize(
    ("focal", "center", "problem"),
    [
        ((0.0, 9.0), (8.0, 6.0), "focal length of 0 pixels"),
        ((9.0, 1e9), (8.0, 6.0), r"focal length of 1e\+09 pixels"),
        ((9.0, 9.0), (0.0, 6.0), r"principal point \(0, 6\) .* 16x12"),
        ((9.0, 9.0), (3.0, 10.0), "swapped|not near"),
    ],
)
def test_impossible_cameras(focal, center, problem):
    with pytest.raises(UserError, match=rf"x\.json.*({problem})"):
        check_pinhole(focal, center, (12, 16), "x.json")
    check_pinhole((9.0, 9.0), (8.0, 6.0), (12, 16), "x.json")


def test_rounding_is_taken_out_of_a_rotation():
    pose = torch.tensor(arc_poses(4)[3, :3])
    (c2w,) = rigid_poses((pose * 1e4).round()[None] / 1e4, ["x.json"])
    assert (c2w[:3, :3] @ c2w[:3, :3].T - torch.eye(3)).abs().max() < 1e-12
    torch.testing.assert_close(c2w[:3], pose, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [1.7, 1e-3, 250.0])
def test_the_scale_of_what_holds_a_camera_is_left_out(scale, caplog):
    poses = torch.from_numpy(arc_poses(4)[:, :3])
    scaled = poses.clone()
    scaled[1:, :, :3] *= scale
    torch.testing.assert_close(rigid_poses(scaled, list("abcd")), rigid_poses(poses, list("abcd")))
    assert f"b: the rotations of 3 poses are scaled, this one by {scale:.4g}" in caplog.text
    scaled[2, :, 0] *= -1
    with pytest.raises(UserError, match=r"c: .*mirror image"):
        rigid_poses(scaled, list("abcd"))


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ((0, 0), -1.0, "mirror image"),
        ((0, 0), 1.1, "orthonormal.*0.136"),
        ((1, 3), float("inf"), "not finite"),
        ((0, 0), 1e30, "orthonormal"),
    ],
)
def test_poses_that_are_none(place, value, problem):
    pose = torch.eye(4, dtype=torch.float64)[:3]
    pose[place] = value
    with pytest.raises(UserError, match=rf"x\.json.*{problem}"):
        rigid_poses(pose[None], ["x.json"])


def test_one_view_at_a_time_is_held_as_it_is_read(scene):
    before = []

    def read(view):
        assert all(image() is None for image in before)
        pixels = read_constant(view)
        before.append(weakref.ref(pixels.image))
        return pixels

    views = scene.load_views([4, 1], read)
    assert views.images[:, 0, 0, 0].tolist() == pytest.approx([0.4, 0.1])
    assert views.images.is_contiguous() and views.masks[:, 0, 0].tolist() == [True, False]


@pytest.mark.parametrize(
    ("options", "native"),
    [
        (ReadOptions(), (6000, 9000)),
        (ReadOptions(scale=0.5), (12000, 16000)),
        (ReadOptions(size=(1 << 14, 1 << 14)), (40, 60)),
    ],
)
def test_images_that_are_too_large_to_compute_with(options, native):
    with pytest.raises(UserError, match="more than the limit of") as told:
        options.target_size(native)
    size = tuple(map(int, str(told.value).split("--image_size ")[1].split()))
    assert ReadOptions(size=size).target_size(native) == size
    assert ReadOptions(longest_side=800).target_size((6000, 9000)) == (533, 800)
