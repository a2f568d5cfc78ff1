"""Sources along a path: near, few, and never popping."""

import pytest
import torch

from models.rendering.config import CameraPathChoice
from models.rendering.fading import (
    SourceSet,
    keyframes,
    nearest_sources,
    plan_sources,
    render_faded,
    source_distances,
)
from models.rendering.paths import make_path
from utils.cameras import Cameras


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("longest", [1, 5, 12, 100])
def test_shares_change_slowly_and_sum_to_one(painted_scene, longest, closed):
    path = make_path(CameraPathChoice("interpolate", n_frames=50), painted_scene).cameras
    plan = plan_sources(path, painted_scene, longest, closed)
    assert len(plan) == 50 and all(len(sets) <= 2 for sets in plan)
    assert all(abs(sum(one.share for one in sets) - 1) < 1e-9 for sets in plan)
    distances = source_distances(path, painted_scene)
    nearest = [nearest_sources(row, 2) for row in distances]
    assert plan[0] == (SourceSet(nearest[0], 1.0),)
    for frame, sets in enumerate(plan):
        # The camera moves by a sixth of the sources' spacing in a frame.
        around = {*nearest[max(frame - 6, 0) : frame + 7], *(nearest[:1] if closed else ())}
        assert {one.places for one in sets} <= around


def test_keyframes_come_quickly_where_the_camera_is_quick():
    at = torch.cat([torch.arange(10) * 0.1, 1 + torch.arange(5) * 2.0]).double()
    apart = (at[:, None] - at).abs()
    assert keyframes(apart, 0.55, 100, closed=False) == [0, 5, 10, 11, 12, 13, 14]
    assert keyframes(apart, 0.55, 2, closed=False)[:5] == [0, 2, 4, 6, 8]
    assert keyframes(apart, 100.0, 100, closed=True) == [0, 15]
    assert keyframes(apart[:1, :1], 1.0, 5, closed=False) == [0]
    assert keyframes(apart[:1, :1], 1.0, 5, closed=True) == [0, 1]


def test_a_video_of_changing_sources_has_no_jump(painted_scene):
    path = make_path(CameraPathChoice("spiral", n_frames=300), painted_scene).cameras
    plan = plan_sources(path, painted_scene, 10, closed=True)
    tones = torch.stack(
        [
            render_faded(painted_scene, path[i], (8, 8), sets).rgb[0, 0, 0]
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

    class Turned(type(painted_scene)):
        cameras = Cameras(painted_scene.cameras.intrinsics, turned)

    distances = source_distances(cameras[4:5], Turned())[0]
    assert nearest_sources(distances, 2) == (3, 5)


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
