"""The evaluation script from its flags to its files."""

import copy
import json

import pytest
import torch
from commands import status_of

import evaluate_vggt_nerf
from datasets.protocols import Region, SceneTask
from evaluation.rendering import Renderer, evaluate_scene
from utils.errors import UserError

SECONDS = ("encode_seconds", "render_seconds")


@pytest.fixture
def evaluate(tiny_checkpoint, tiny_dtu, tmp_path, monkeypatch):
    """Run the script; returns its status and the figures, if there are any."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def run(*argv, out="figures.json"):
        path = tmp_path / out
        flags = ["--ckpt", tiny_checkpoint, "--datadir", tiny_dtu, "--device", "cpu"]
        status = status_of(evaluate_vggt_nerf.main, *flags, "--out", path, *argv)
        return status, json.loads(path.read_text()) if path.is_file() else None

    return run


def without_seconds(figures):
    if isinstance(figures, dict):
        return {key: without_seconds(v) for key, v in figures.items() if key not in SECONDS}
    return [without_seconds(v) for v in figures] if isinstance(figures, list) else figures


def test_figures_of_dtu(evaluate, tmp_path, caplog):
    caplog.set_level("INFO")
    flags = ["--targets", 5, 2, "--N_samples", 4, "--N_planes", 8]
    status, figures = evaluate("--save_images", tmp_path / "pictures", *flags)
    assert status == 0
    rendering = figures["settings"]["checkpoint"]["model"]["rendering"]
    assert rendering["N_samples"] == 4 and rendering["N_planes"] == 8
    scene = figures["scenes"]["scan2"]
    assert [view["view"] for view in scene["views"]] == [5, 2]
    assert scene["views"][0]["region"] == "pixels with true depth"
    assert 3 < scene["psnr"] < 40 and scene["depth_abs_err"] > 0 and scene["lpips"] is None
    assert figures["mean"]["psnr"] == scene["psnr"]
    assert figures["settings"]["checkpoint"]["step"] == 7
    assert figures["settings"]["lpips"].startswith("left out")
    assert "LPIPS is left out" in caplog.text and "PSNR" in caplog.text
    names = {path.name for path in (tmp_path / "pictures" / "scan2").iterdir()}
    kinds = ("prediction", "truth", "error", "depth", "true_depth")
    assert names == {f"view00{view}_{kind}.png" for view in (2, 5) for kind in kinds}


def test_mvsnerf_is_measured_alike(evaluate, mvsnerf_file):
    flags = ["--ckpt", mvsnerf_file, "--N_samples", 4, "--N_planes", 8, "--targets", 5]
    status, figures = evaluate(*flags)
    assert status == 0
    about = figures["settings"]["checkpoint"]
    assert about["model"] == "mvsnerf" and about["baseline"]["ray_samples"] == 4
    view = figures["scenes"]["scan2"]["views"][0]
    assert view["psnr"] > 3 and 0 < view["seen_share"] <= 1 and view["seen_psnr"] > 3


def test_chunks_and_devices_change_no_figure(evaluate):
    views = ["--targets", 5, 2, 3, "--image_scale", 0.5]
    _, figures = evaluate(*views)
    for other in (["--chunk", 333], ["--chunk", 100_000], ["--devices", 2]):
        _, same = evaluate(*views, *other, out="same.json")
        for part in ("scenes", "mean"):
            assert without_seconds(figures[part]) == without_seconds(same[part])


def test_procedural_worlds_need_no_data(evaluate):
    flags = ["--num_worlds", 1, "--world_views", 4, "--image_size", 24, 32, "--world_targets", 1]
    status, figures = evaluate("--dataset_name", "procedural", "--datadir", "absent", *flags)
    assert status == 0
    assert list(figures["subsets"]) == ["textured", "textureless"]
    row = figures["scenes"]["world0000_textureless"]
    assert row["subset"] == "textureless" and row["image_size"] == [24, 32]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--ckpt", "absent.ckpt"], ["absent.ckpt"]),
        (["--datadir", "absent"], ["absent", "no such data folder"]),
        (["--targets", "77"], ["no view 77"]),
        (["--N_planes", "1"], ["N_planes=1"]),
        (["--n_views", "2", "--ckpt", "MVSNERF"], ["--n_views 3"]),
        (["--dataset_name", "llff"], ["poses_bounds.npy"]),
        (["--dataset_name", "tum"], ["invalid choice"]),
        (["--out", "."], ["folder", "--out"]),
        (["--save_images", "/dev/null"], ["/dev/null: cannot write here", "--save_images"]),
        (["--device", "gpu", "--devices", "64"], ["64 GPUs", "--device cpu"]),
        (["--lpips_weights", "absent.pth"], ["absent.pth"]),
    ],
)
def test_refusals_name_the_value(evaluate, assert_refused, mvsnerf_file, argv, words):
    argv = [mvsnerf_file if word == "MVSNERF" else word for word in argv]
    status, figures = evaluate(*argv)
    assert_refused(status, words)
    assert figures is None


def test_shares_of_devices_come_back_in_the_order_of_the_targets(drawn_scene, tiny_model):
    task = SceneTask(drawn_scene, (0, 2, 4), ((1,), (3,), (5,)), Region(depth_is_complete=True))
    renderers = [Renderer(tiny_model, torch.device("cpu"), 500) for _ in range(2)]
    results = evaluate_scene(task, renderers)
    assert [result.target for result in results] == [0, 2, 4]
    for target, result in zip((0, 2, 4), results, strict=True):
        truth = torch.from_numpy(drawn_scene.read_view(target).image).permute(2, 0, 1)
        assert torch.equal(result.images.true_rgb, truth)
        assert result.scores["empty_opacity"] is not None


def test_a_model_that_renders_no_numbers_is_an_error(drawn_scene, tiny_model):
    model = copy.deepcopy(tiny_model)
    next(model.decoder.parameters()).data.fill_(torch.nan)
    task = SceneTask(drawn_scene, (0,), ((1, 2),), Region())
    with pytest.raises(UserError, match="renders values that are not finite"):
        evaluate_scene(task, [Renderer(model, torch.device("cpu"), 500)])
