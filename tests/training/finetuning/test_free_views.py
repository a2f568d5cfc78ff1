"""A fine-tuned scene in videos and in the viewer: the file alone."""

import imageio.v3 as imageio
import pytest
import torch

import render_video
from models.checkpoints.scene_file import load_finetuned
from models.scenes.renderable_scene import RenderableScene, open_tuned


@pytest.fixture
def scene_file(finetune, tmp_path):
    assert finetune() == 0
    (file,) = tmp_path.rglob("latest.tar")
    return file


def test_free_views_of_a_fine_tuned_scene(scene_file, tmp_path):
    scene = open_tuned(str(scene_file), torch.device("cpu"))
    assert isinstance(scene, RenderableScene) and scene.unit.name == "mm"
    camera = scene.cameras[[0]]
    (places,) = scene.choose_sources(camera, (16, 20))
    truth = load_finetuned(scene_file).render(camera, (16, 20)).rgb[0]
    torch.testing.assert_close(
        scene.render(camera[0], (16, 20), places).rgb, truth, atol=1e-5, rtol=0
    )
    fewer = scene.with_sampling(*scene.near_far.tolist(), 3)
    assert fewer.n_samples == 3 and fewer.fingerprint() != scene.fingerprint()
    assert scene.n_samples != 3 and scene.images([0, 1]).shape[:2] == (2, 3)

    flags = ["--ckpt", scene_file, "--out", tmp_path / "frames", "--n_frames", 3, "--size", 16, 20]
    assert render_video.main([str(flag) for flag in [*flags, "--accelerator", "cpu"]]) == 0
    assert imageio.imread(tmp_path / "frames" / "frame_00002.png").shape == (16, 20, 3)
    assert render_video.main([str(flag) for flag in [*flags, "--sources", 1]]) == 2
