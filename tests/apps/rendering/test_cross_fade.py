"""Sources along a path: near, few, and never changing abruptly."""

from dataclasses import replace

import pytest
import torch

from apps.rendering.config import CameraPathChoice
from apps.rendering.frames import plan_frames
from apps.rendering.paths import make_path
from models.scenes.cross_fade import SourceSet, keyframes, render_cross_fade, step_lengths
from utils.camera_rig import nearest_sources
from utils.cameras import Cameras

HALF_TURN = torch.diag(torch.tensor([-1.0, 1, -1]))


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("longest", [1, 5, 12, 100])
def test_weights_sum_to_one_and_sources_are_near(painted_scene, longest, closed):
    path = make_path(CameraPathChoice("interpolate", n_frames=50), painted_scene)
    path = replace(path, closed=closed)
    plan = plan_frames(painted_scene, path, longest).sources
    assert len(plan) == 50 and all(len(sets) <= 2 for sets in plan)
    assert all(abs(sum(one.weight for one in sets) - 1) < 1e-9 for sets in plan)
    nearest = painted_scene.choose_sources(path.cameras, path.size)
    assert plan[0] == (SourceSet(nearest[0], 1.0),)
    for frame, sets in enumerate(plan):
        # The camera moves by a sixth of the sources' spacing in a frame.
        around = {*nearest[max(frame - 6, 0) : frame + 7], *(nearest[:1] if closed else ())}
        assert {one.source_indices for one in sets} <= around


def test_keyframes_are_close_where_the_camera_is_fast():
    at = torch.cat([torch.arange(10) * 0.1, 1 + torch.arange(5) * 2.0]).double()
    steps = (at.roll(-1) - at).abs().tolist()
    assert keyframes(steps, 0.55, 100, closed=False) == [0, 5, 10, 11, 12, 13, 14]
    assert keyframes(steps, 0.55, 2, closed=False)[:5] == [0, 2, 4, 6, 8]
    assert keyframes(steps, 100.0, 100, closed=True) == [0, 15]
    assert keyframes([0.0], 1.0, 5, closed=False) == [0]
    assert keyframes([0.0], 1.0, 5, closed=True) == [0, 1]


def test_directions_count_like_positions(painted_scene):
    """Turning in place is a movement; sources at the same place that look elsewhere are far."""
    cameras = painted_scene.cameras
    turned = Cameras(cameras.intrinsics, cameras.c2w.clone())
    turned.c2w[4, :3, :3] = turned.c2w[4, :3, :3] @ HALF_TURN
    assert nearest_sources(cameras[[4]], turned, painted_scene.near_far, 2) == ((3, 5),)
    c2w = torch.stack([cameras.c2w[4], turned.c2w[4]])
    steps = step_lengths(Cameras(cameras.intrinsics[:2], c2w), 4.0)
    assert steps == pytest.approx([8.0, 8.0])


def test_a_video_of_changing_sources_has_no_jump(painted_scene):
    path = make_path(CameraPathChoice("spiral", n_frames=300), painted_scene)
    plan = plan_frames(painted_scene, path, 10).sources
    frames = [
        render_cross_fade(painted_scene, path.cameras[number], (8, 8), sets)
        for number, sets in enumerate(plan)
    ]
    tones = torch.stack([frame.rgb[0, 0, 0] for frame in frames])
    assert tones.max() - tones.min() > 0.3
    assert torch.cat([tones, tones[:1]]).diff().abs().max() < 0.07


def test_the_far_background_of_one_set_does_not_spoil_depth(painted_scene):
    class Holey(type(painted_scene)):
        def render(self, camera, size, source_indices):
            view = super().render(camera, size, source_indices)
            if source_indices == (0, 1):
                view.depth[:] = 8.0
                view.opacity[:] = 0.0
            return view

    sets = (SourceSet((0, 1), 0.5), SourceSet((1, 2), 0.5))
    mixed = render_cross_fade(Holey(), painted_scene.cameras[1], (8, 8), sets)
    alone = painted_scene.render(painted_scene.cameras[1], (8, 8), (1, 2))
    torch.testing.assert_close(mixed.depth[2:], alone.depth[2:], atol=1e-3, rtol=0)
    torch.testing.assert_close(mixed.opacity[2:], torch.full((6, 8), 0.5))
