"""Frames on disk survive whatever ends a run."""

import pytest
import torch

from apps.rendering.config import CameraPathChoice
from apps.rendering.frames import (
    FrameStore,
    RenderingCost,
    describe_cost,
    plan_frames,
    render_frames,
)
from apps.rendering.paths import make_path
from utils.errors import UserError


@pytest.fixture
def job(painted_scene):
    path = make_path(CameraPathChoice("interpolate", n_frames=20), painted_scene)
    return plan_frames(painted_scene, path, 4)


def test_an_interrupted_run_goes_on_where_it_was(job, painted_scene, tmp_path):
    store = FrameStore(tmp_path / "video.mp4.partial" / "frames")
    object.__setattr__(painted_scene, "stop_after", 4)
    with pytest.raises(KeyboardInterrupt):
        render_frames(job, store)
    kept = sum(store.has(frame) for frame in range(20))
    assert 1 <= kept < 4 and all(store.has(frame) for frame in range(kept))
    object.__setattr__(painted_scene, "stop_after", 1000)
    painted_scene.rendered.clear()
    render_frames(job, store)
    assert len(painted_scene.rendered) == sum(len(job.sources[frame]) for frame in range(kept, 20))
    pictures = list(store.read_all(len(job)))
    greens = torch.stack([picture.rgb[1, 0, 0] for picture in pictures])
    expected = job.path.cameras.c2w[:, 0, 3] / 4 + 0.5
    torch.testing.assert_close(greens, expected, atol=1 / 255, rtol=0)
    assert torch.equal(pictures[3].depth[0, :1], -job.path.cameras.c2w[3, 2, 3:4])
    assert not pictures[0].solid[0].any() and pictures[0].solid[2:].all()
    store.remove()
    assert not (tmp_path / "video.mp4.partial").exists()


def test_other_pictures_have_other_names(job, painted_scene):
    zoomed = make_path(CameraPathChoice("interpolate", n_frames=20, zoom=1.1), painted_scene)
    nearer = painted_scene.with_sampling(1.0, 7.0, 8)
    others = ((painted_scene, zoomed, 4), (painted_scene, job.path, 1), (nearer, job.path, 4))
    names = {plan_frames(*other).fingerprint for other in others}
    assert len(names) == 3 and job.fingerprint not in names
    assert plan_frames(painted_scene, job.path, 4).fingerprint == job.fingerprint


def test_damaged_frames_and_a_folder_that_cannot_be_written_are_named(job, tmp_path):
    store = FrameStore(tmp_path)
    render_frames(job, store)
    for name, content in (("frame_00002.npz", b"PK"), ("frame_00004.npz", b"")):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name.split(".")[0]):
            list(store.read_all(len(job)))
        (tmp_path / name).write_bytes(whole)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="taken"):
        render_frames(job, FrameStore(tmp_path / "taken" / "frames"))


def test_the_cost_of_a_video_is_told_with_a_cheaper_way(job):
    # 20 frames, of which those between two source sets are rendered from both.
    renderings = sum(len(sets) for sets in job.sources)
    sets = {one.source_indices for frame in job.sources for one in frame}
    cost = RenderingCost(encode=5.0, render=2.0)
    assert cost.of_frames(job, range(20)) == 5 * len(sets) + 2 * renderings
    assert cost.of_frames(job, [0]) == 7
    assert "--size 12 16 takes about" in describe_cost(cost, job, range(20))
    short = describe_cost(cost.scaled(0.01), job, range(20))
    assert short.startswith("20 frames of 32x24, about 1 s") and "cheaper" not in short
