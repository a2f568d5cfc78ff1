"""The small scripts around training: what they refuse, in one line."""

import pytest
import torch

from apps import export_checkpoint
from benchmarks import prior_depth, speed
from models.checkpoints.general import read_checkpoint
from utils.checkpoints import load_safely, save_atomically


@pytest.mark.parametrize("script", [speed, prior_depth])
def test_benchmarks_report_a_wrong_checkpoint(run_main, tmp_path, script):
    status, text = run_main(script.main, "--ckpt", tmp_path / "absent.ckpt")
    assert status == 2 and f"{tmp_path / 'absent.ckpt'}: no such checkpoint" in text


def test_an_export_must_be_told_what_to_export(run_main):
    status, text = run_main(export_checkpoint.main)
    assert status == 2 and "required: --ckpt" in text


def test_an_export_to_where_nothing_can_be_written(run_main, tiny_checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "exported"
    status, text = run_main(export_checkpoint.main, "--ckpt", tiny_checkpoint, "--out", out)
    assert status == 2 and f"{out}: cannot write here" in text
    assert "choose another folder with --out" in text


@pytest.mark.parametrize("where", ["as in training", "absent"])
def test_an_export_refuses_a_size_that_no_patches_fill(run_main, tiny_checkpoint, tmp_path, where):
    path = [] if where == "as in training" else ["--vggt_path", tmp_path / where]
    flags = ["--ckpt", tiny_checkpoint, "--out", tmp_path / "exported", *path]
    status, text = run_main(export_checkpoint.main, *flags, "--backbone_size", 100)
    assert status == 2 and "backbone_size=100 must be a positive multiple of the patch 14" in text
    assert not (tmp_path / "exported").exists()
    assert run_main(export_checkpoint.main, *flags, "--backbone_size", 98)[0] == 0
    exported = read_checkpoint(str(tmp_path / "exported"))
    assert exported.backbone_config.backbone_size == 98


def test_an_export_averages_weights_of_equal_models_only(run_main, tiny_checkpoint, tmp_path):
    content = load_safely(tiny_checkpoint)
    first = content["state_dict"]
    content["state_dict"] = {name: value + 1 for name, value in first.items()}
    save_atomically(content, tmp_path / "other.ckpt")
    flags = ["--ckpt", tiny_checkpoint, "--out", tmp_path / "mean", "--average"]
    assert run_main(export_checkpoint.main, *flags, tmp_path / "other.ckpt")[0] == 0
    mean = load_safely(tmp_path / "mean" / "model.ckpt")["state_dict"]
    for name, value in first.items():
        torch.testing.assert_close(mean[name].float(), value + 0.5, atol=2e-3, rtol=1e-3)
    trained = content | {"state_dict": content["state_dict"] | {"network.x": torch.zeros(1)}}
    save_atomically(trained, tmp_path / "trained.ckpt")
    both = tmp_path / "trained.ckpt", "--average", tmp_path / "trained.ckpt"
    status, text = run_main(export_checkpoint.main, "--out", tmp_path / "no", "--ckpt", *both)
    assert status == 2 and "apps.average_backbones" in text
    rendering = content["vggt_nerf"]["settings"]["model"]["rendering"]
    rendering["lindisp"] = not rendering["lindisp"]
    save_atomically(content, tmp_path / "other.ckpt")
    status, text = run_main(export_checkpoint.main, *flags, tmp_path / "other.ckpt")
    assert status == 2 and "settings of its model differ" in text
    content["vggt_nerf"]["backbone_fingerprint"] = "0123"
    save_atomically(content, tmp_path / "other.ckpt")
    status, text = run_main(export_checkpoint.main, *flags, tmp_path / "other.ckpt")
    assert status == 2 and "other.ckpt: cannot be averaged" in text and "backbone" in text
    del content["state_dict"]["model.radiance_field.density.bias"]
    save_atomically(content, tmp_path / "other.ckpt")
    status, text = run_main(export_checkpoint.main, *flags, tmp_path / "other.ckpt")
    assert status == 2 and "1 missing (model.radiance_field.density.bias)" in text
