"""The small scripts around training: what they refuse, in one line."""

import pytest

from apps import export_checkpoint
from benchmarks import prior_depth, speed
from models.checkpoints.general import read_checkpoint


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
