"""Files of the version before fine-tuning had Lightning's trainer resume and render.

``tests/fixtures/old_files`` holds a general run of ten steps, cut after six, and a fine-tuning of
nine steps, cut after four, both of the tiny scene. The figures are what that version went on to.
"""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from training_runs import train

import train_vggt_nerf_finetuning_pl
from models.checkpoint import load_finetuned, read_checkpoint
from utils.files import load_safely, save_atomically

OLD = Path(__file__).resolve().parents[1] / "fixtures/old_files"
LOSSES = {6: 0.044061169, 7: 0.037925132, 8: 0.035598844, 9: 0.043812096}
CURVE = {0: 19.936502, 3: 20.122864, 6: 20.197807, 9: 20.269077}
pytestmark = pytest.mark.filterwarnings("default")


def test_a_general_run_resumes(general, tmp_path):
    flags = "--vggt_path backbone --backbone none --volume_widths 8 --feature_channels 4"
    flags = [*general.flags, *flags.split(), "--coarse_channels", "4", "--num_epochs", "2"]
    old = shutil.copy(OLD / "last.ckpt", tmp_path)
    kind = SimpleNamespace(**vars(general) | {"flags": flags})
    losses, path = train(kind, tmp_path / "runs", "--ckpt", old)
    assert losses == pytest.approx(LOSSES, abs=1e-6)
    assert read_checkpoint(old).step == 6 and load_safely(path)["global_step"] == 10


@pytest.mark.parametrize("with_average", [True, False])
def test_a_fine_tuning_resumes_where_it_lies_and_renders(tiny_dtu, tmp_path, with_average):
    """Before that version there was no average."""
    latest = tmp_path / "run/ckpts/latest.tar"
    latest.parent.mkdir(parents=True)
    shutil.copy(OLD / "latest.tar", latest)
    if not with_average:
        content = load_safely(latest)
        del content["training"]["progress"]["average"]
        save_atomically(content, latest)
    before = load_finetuned(latest)
    argv = ["--ckpt", str(latest), "--datadir", str(tiny_dtu / "scan2")]
    assert train_vggt_nerf_finetuning_pl.main(argv) == 0
    assert load_safely(latest)["training"]["progress"]["step"] == 9
    if with_average:
        curve = json.loads((tmp_path / "run/curve.json").read_text())
        assert {row["step"]: row["psnr"] for row in curve} == pytest.approx(CURVE, abs=1e-3)
    after = load_finetuned(latest)
    assert before.header.train_ids == after.header.train_ids == (0, 2, 5)
    assert before.header.scene == "scan2"
    pictures = [
        scene.render(scene.scene.cameras[:1], size=(16, 20)).rgb for scene in (before, after)
    ]
    assert 0 < (pictures[0] - pictures[1]).abs().max() < 0.1
