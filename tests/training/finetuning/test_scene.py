"""A scene: its depth, its sources, its losses, its validation."""

import json
import math

import pytest
import torch
from training_runs import train

from apps.export_checkpoint import ExportConfig, export_checkpoint
from datasets.protocols import Region
from datasets.views import Views
from evaluation.rendering import TestViews
from evaluation.scores import ViewImages
from models.checkpoints.general import read_checkpoint
from models.checkpoints.scene_file import load_finetuned, read_scene_file
from models.scenes.source_selection import SizedCameras, choose_sources
from training.config import FineTuningConfig, LossConfig, SceneOptimizerConfig
from training.finetuning import module as finetuning_module
from training.finetuning.module import FineTuningModule, draw_sources
from training.finetuning.run_log import Best

NAME = "runs/scan2/vggt_finetune_scan2"
SIZE = (32, 40)
NEAR_FAR = torch.tensor([2.0, 8.0])
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def tuned(scene, tmp_path_factory):
    """The file of a fine-tuning of one step."""
    return train(scene, tmp_path_factory.mktemp("tuned"), "--num_steps", 1)[1]


def test_the_prior_is_the_depth_of_the_volume_in_front_of_every_view(tuned):
    scene = load_finetuned(tuned).scene
    neighbours = scene.sources_of_training_views(scene.num_sources - 1)
    found = []
    with torch.no_grad():
        for view, others in enumerate(neighbours):
            features = scene.gather(torch.cat([torch.tensor([view]), others])[None])
            camera, near_far = scene.cameras[view : view + 1], scene.near_far[None]
            found.append(scene.model.find_surface(features, camera, near_far, scene.size))
    before = scene.scene_state()
    old = {name: before[name].clone() for name in ("depth", "confidence")}
    scene.refine_depth_prior()
    torch.testing.assert_close(scene.depth, torch.cat([depth for depth, _ in found]))
    assert (scene.confidence <= torch.cat([mass for _, mass in found]) + 1e-6).all()
    assert (scene.reliability == 1).all()
    # An earlier state keeps its values.
    assert not torch.equal(scene.depth, old["depth"])
    assert all(torch.equal(before[name], value) for name, value in old.items())


def test_what_is_not_finite_is_never_the_best(tuned):
    scene, best = load_finetuned(tuned).scene, Best()
    for step, psnr in enumerate((25.0, math.nan, 10.0)):
        best.update(scene, step, psnr)
    assert (best.psnr, best.step) == (25.0, 0)


def test_depth_is_estimated_anew_as_often_as_told(scene, tmp_path):
    """Sharper features give other depths; with 0 the first estimate is the only one."""
    contents = []
    for every in (0, 2):
        flags = ["--refine_every", every, "--lrate_maps", 0.05, "--num_steps", 4]
        contents.append(read_scene_file(train(scene, tmp_path / str(every), *flags)[1]))
    curves = [content["training"]["curve"] for content in contents]
    assert curves[0][0]["psnr"] == curves[1][0]["psnr"]
    assert not torch.equal(*(content["state"]["depth"] for content in contents))


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

    monkeypatch.setattr(finetuning_module, "draw_sources", spy)
    assert finetune(num_steps=2, n_views=n_views, step_sources=step_sources, spare_sources=1) == 0
    assert seen == [drawn, drawn]
    report = json.loads((tmp_path / NAME / "metrics.json").read_text())["scenes"]["scan2"]
    assert {len(view["sources"]) for view in report["views"]} == {n_views}


def test_planes_and_samples_can_be_chosen_and_lie_beside_planes_while_the_volume_learns(
    scene, general_checkpoint, tmp_path
):
    folder = str(tmp_path / "exported")
    exported = export_checkpoint(
        ExportConfig(str(general_checkpoint), folder, sampling_spread=False)
    )
    assert not read_checkpoint(str(exported)).model_config.rendering.sampling_spread
    flags = ["--num_steps", 1, "--N_planes", 6, "--N_samples", 5, "--init_ckpt", exported]
    rendering = load_finetuned(train(scene, tmp_path, *flags)[1]).scene.model.config.rendering
    assert (rendering.N_planes, rendering.N_samples) == (6, 5) and rendering.sampling_spread


@pytest.mark.parametrize("guide_weight", [0.01, 0.0])
def test_without_depth_the_volume_learns_from_the_guidance_alone(tuned, guide_weight):
    """Samples are drawn without gradients."""
    scene = load_finetuned(tuned).scene
    flags = {"batch_size": 64, "targets_per_step": 1, "guide_weight": guide_weight}
    loss = LossConfig(coarse_weight=0.0, ssim_weight=0.0)
    config = FineTuningConfig(optimizer=SceneOptimizerConfig(**flags), loss=loss)
    module = FineTuningModule(scene, torch.ones(len(scene.images), *scene.size).bool(), config)
    module.training_step(None, 0)["loss"].backward()
    # The first output is the planes' weight; the others are context for the field.
    gradient = scene.model.volume.network.outward.weight.grad[0].abs().max()
    assert (gradient > 0) == (guide_weight > 0)


def test_sources_are_near_cover_the_picture_and_are_never_the_view_itself(arc_cameras):
    cameras = arc_cameras([-1.0, -0.6, -0.2, 0.0, 0.2, 0.6, 1.0])
    frames, own = SizedCameras(cameras, SIZE), torch.arange(7)
    chosen = choose_sources(frames, frames, NEAR_FAR, 3, own=own)
    assert chosen.shape == (7, 3)
    for view, sources in enumerate(chosen.tolist()):
        assert view not in sources and len(set(sources)) == 3
    assert set(chosen[3, :2].tolist()) == {2, 4}
    # One that is not in the pool may have its double there.
    assert choose_sources(frames, frames, NEAR_FAR, 1)[:, 0].tolist() == list(range(7))


def test_sources_look_the_same_way(arc_cameras):
    """A camera at the same place that looks away is no source."""
    cameras = arc_cameras([0.0, 0.3])
    away = arc_cameras([0.01])
    away.c2w[:, :3, 0] *= -1
    away.c2w[:, :3, 2] *= -1
    pool = SizedCameras(
        type(cameras)(
            torch.cat([away.intrinsics, cameras.intrinsics[1:]]),
            torch.cat([away.c2w, cameras.c2w[1:]]),
        ),
        SIZE,
    )
    assert choose_sources(SizedCameras(cameras[:1], SIZE), pool, NEAR_FAR, 1).item() == 1


def view(rgb, counted=True):
    plane, picture = torch.full((8, 8), 1.0), torch.full((3, 8, 8), 0.5)
    return ViewImages(picture + rgb, plane, plane, picture, plane * 0, plane.bool() & counted)


def test_a_view_without_pixels_is_left_out_and_one_that_is_not_finite_is_not(arc_cameras):
    photos = torch.full((1, 3, 8, 8), 0.5)
    cameras = arc_cameras([0.0], (8, 8))
    views = Views(photos, cameras, photos[:, 0] * 0, torch.ones(1, 8, 8, dtype=torch.bool))
    tests = TestViews(views, (0,), Region(), 64)
    assert tests.mean_psnr([view(0.1), view(0.3, False)]) == pytest.approx(20, abs=1e-3)
    assert math.isnan(tests.mean_psnr([view(0.1), view(math.nan)]))
    assert math.isnan(tests.mean_psnr([view(0.1, False)]))
