"""Sources along a path: near, few, and never popping."""

from dataclasses import replace

import pytest
import torch

from apps.rendering.config import CameraPathChoice
from apps.rendering.cross_fade import (
    SourceSet,
    keyframes,
    plan_sources,
    render_faded,
    step_lengths,
)
from apps.rendering.paths import make_path
from apps.rendering.source_selection import nearest_sources
from utils.cameras import Cameras


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("longest", [1, 5, 12, 100])
def test_shares_change_slowly_and_sum_to_one(painted_scene, longest, closed):
    path = make_path(CameraPathChoice("interpolate", n_frames=50), painted_scene)
    path = replace(path, closed=closed)
    plan = plan_sources(path, painted_scene, longest)
    assert len(plan) == 50 and all(len(sets) <= 2 for sets in plan)
    assert all(abs(sum(one.share for one in sets) - 1) < 1e-9 for sets in plan)
    nearest = painted_scene.choose_sources(path.cameras, path.size)
    assert plan[0] == (SourceSet(nearest[0], 1.0),)
    for frame, sets in enumerate(plan):
        # The camera moves by a sixth of the sources' spacing in a frame.
        around = {*nearest[max(frame - 6, 0) : frame + 7], *(nearest[:1] if closed else ())}
        assert {one.places for one in sets} <= around


def test_keyframes_come_quickly_where_the_camera_is_quick():
    at = torch.cat([torch.arange(10) * 0.1, 1 + torch.arange(5) * 2.0]).double()
    steps = (at.roll(-1) - at).abs().tolist()
    assert keyframes(steps, 0.55, 100, closed=False) == [0, 5, 10, 11, 12, 13, 14]
    assert keyframes(steps, 0.55, 2, closed=False)[:5] == [0, 2, 4, 6, 8]
    assert keyframes(steps, 100.0, 100, closed=True) == [0, 15]
    assert keyframes([0.0], 1.0, 5, closed=False) == [0]
    assert keyframes([0.0], 1.0, 5, closed=True) == [0, 1]


def test_turning_in_place_is_a_way_too(painted_scene):
    cameras = painted_scene.cameras[[0, 0]]
    cameras.c2w[1, :3, :3] = cameras.c2w[1, :3, :3] @ torch.diag(torch.tensor([-1.0, 1, -1]))
    assert step_lengths(cameras, 4.0) == pytest.approx([8.0, 8.0])


def test_a_video_of_changing_sources_has_no_jump(painted_scene):
    path = make_path(CameraPathChoice("spiral", n_frames=300), painted_scene)
    plan = plan_sources(path, painted_scene, 10)
    tones = torch.stack(
        [
            render_faded(painted_scene, path.cameras[i], (8, 8), sets).rgb[0, 0, 0]
            for i, sets in enumerate(plan)
        ]
    )
    assert tones.max() - tones.min() > 0.3
    assert torch.cat([tones, tones[:1]]).diff().abs().max() < 0.07


def test_sources_that_look_elsewhere_are_far(painted_scene):
    """A camera at the same place, turned away, is farther than one beside it."""
    cameras = painted_scene.cameras
    turned = cameras.c2w.clone()
    turned[4, :3, :3] = turned[4, :3, :3] @ torch.diag(torch.tensor([-1.0, 1, -1]))

    sources = Cameras(cameras.intrinsics, turned)
    assert nearest_sources(cameras[[4]], sources, painted_scene.near_far, 2) == ((3, 5),)


def test_the_far_background_of_one_set_does_not_spoil_depth(painted_scene):
    class Holey(type(painted_scene)):
        def render(self, camera, size, places):
            picture = super().render(camera, size, places)
            if places == (0, 1):
                picture.depth[:] = 8.0
                picture.opacity[:] = 0.0
            return picture

    sets = (SourceSet((0, 1), 0.5), SourceSet((1, 2), 0.5))
    mixed = render_faded(Holey(), painted_scene.cameras[1], (8, 8), sets)
    alone = painted_scene.render(painted_scene.cameras[1], (8, 8), (1, 2))
    torch.testing.assert_close(mixed.depth[2:], alone.depth[2:], atol=1e-3, rtol=0)
    torch.testing.assert_close(mixed.opacity[2:], torch.full((6, 8), 0.5))
