"""What a scene believes about the depth of its views, and which of them it is rendered from."""

import json

import pytest
import torch

from apps.export_checkpoint import export_checkpoint
from models.checkpoint import load_finetuned, read_checkpoint, read_scene_file
from models.depth_refinement import surfaces
from training import finetuning_step as steps
from training.finetuning_step import draw_sources

NAME = "runs/scan2/vggt_finetune_scan2"


@pytest.fixture
def scene(finetune, tmp_path):
    assert finetune(num_steps=1) == 0
    return load_finetuned(tmp_path / NAME / "ckpts/latest.tar").scene


def test_the_prior_is_what_the_volume_sees_from_every_view(scene):
    neighbours = scene.sources_of_training_views(scene.num_sources - 1)
    seen = []
    with torch.no_grad():
        for view, others in enumerate(neighbours):
            group = torch.cat([torch.tensor([view]), others])[None]
            camera = scene.cameras[view : view + 1]
            bounds = scene.near_far[None]
            seen.append(
                surfaces(
                    scene.model.build_cost_volume(scene.gather(group), camera, bounds, scene.size)
                )
            )
    before = scene.scene_state()
    old = {name: before[name].clone() for name in ("depth", "confidence")}
    scene.refine_depth_prior()
    torch.testing.assert_close(scene.depth, torch.cat([depth for depth, _ in seen]))
    assert (scene.confidence <= torch.cat([mass for _, mass in seen]) + 1e-6).all()
    assert (scene.reliability == 1).all()
    # Whoever keeps an earlier state keeps what it says.
    assert not torch.equal(scene.depth, old["depth"])
    assert all(torch.equal(before[name], value) for name, value in old.items())


def test_depth_is_looked_at_again_as_often_as_told(finetune, tmp_path):
    """Sharper features say other depths; with 0 the first look is the only one."""
    depths = {}
    for every in (0, 2):
        name = f"every{every}"
        assert finetune(expname=name, refine_every=every, lrate_maps=0.05, num_steps=4) == 0
        state = read_scene_file(tmp_path / "runs/scan2" / name / "ckpts/latest.tar")["state"]
        depths[every] = state["depth"]
    curves = [
        json.loads((tmp_path / "runs/scan2" / f"every{every}" / "curve.json").read_text())
        for every in (0, 2)
    ]
    assert curves[0][0]["psnr"] == curves[1][0]["psnr"]
    assert not torch.equal(depths[0], depths[2])


def test_sources_of_a_step_are_some_of_the_candidates():
    candidates = torch.tensor([[4, 7, 2, 9, 5], [1, 3, 8, 6, 0]])
    drawn = [draw_sources(candidates, 3, torch.Generator().manual_seed(seed)) for seed in range(20)]
    for chosen in drawn:
        assert chosen.shape == (2, 3)
        for row, pool in zip(chosen.tolist(), candidates.tolist(), strict=True):
            assert len(set(row)) == 3 and set(row) <= set(pool)
    assert {source for chosen in drawn for source in chosen[0].tolist()} == {4, 7, 2, 9, 5}
    again = draw_sources(candidates, 3, torch.Generator().manual_seed(3))
    assert torch.equal(again, drawn[3])
    assert torch.equal(draw_sources(candidates[:, :3], 3, torch.Generator()), candidates[:, :3])


@pytest.mark.parametrize(
    ("n_views", "step_sources", "drawn"), [(4, 2, (3, 2)), (2, 0, (3, 2)), (2, 9, (3, 2))]
)
def test_a_step_may_take_fewer_sources_than_a_picture(
    finetune, tmp_path, monkeypatch, n_views, step_sources, drawn
):
    """Never more; and every step draws them among as many spare ones as it was told."""
    seen = []

    def spy(candidates, count, generator):
        chosen = draw_sources(candidates, count, generator)
        seen.append((candidates.shape[1], chosen.shape[1]))
        return chosen

    monkeypatch.setattr(steps, "draw_sources", spy)
    assert finetune(num_steps=2, n_views=n_views, step_sources=step_sources, spare_sources=1) == 0
    assert seen == [drawn, drawn]
    report = json.loads((tmp_path / NAME / "metrics.json").read_text())["scenes"]["scan2"]
    assert {len(view["sources"]) for view in report["views"]} == {n_views}


def test_planes_and_samples_can_be_chosen(finetune, tmp_path):
    assert finetune(num_steps=1, N_planes=6, N_samples=5) == 0
    rendering = load_finetuned(tmp_path / NAME / "ckpts/latest.tar").scene.model.config.rendering
    assert (rendering.N_planes, rendering.N_samples) == (6, 5)


def test_samples_lie_beside_planes_again_while_the_volume_learns(
    finetune, general_checkpoint, tmp_path
):
    sampling = {"sampling_spread": False}
    exported = export_checkpoint(general_checkpoint, tmp_path / "exported", sampling=sampling)
    assert not read_checkpoint(str(exported)).model_config.rendering.sampling_spread
    assert finetune(num_steps=1, init_ckpt=exported) == 0
    rendering = load_finetuned(tmp_path / NAME / "ckpts/latest.tar").scene.model.config.rendering
    assert rendering.sampling_spread
