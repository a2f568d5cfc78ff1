"""A resumed run is the uninterrupted run, bit for bit, wherever it was cut."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import pytest
import torch
from pytorch_lightning.callbacks import Callback, ProgressBar
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from apps.export_checkpoint import export_checkpoint
from models.checkpoint import read_checkpoint
from training import general
from utils.checkpoints import load_safely, save_atomically
from utils.config import parse_config
from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.filterwarnings("default")


class Record(Callback):
    """Remember the learning rate and the loss of every step; crash before a given one."""

    def __init__(self, crash_before=None):
        self.crash_before = crash_before
        self.rates, self.losses = {}, {}

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.crash_before:
            raise RuntimeError("crash")
        self.rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(self, trainer, module, outputs, *args):
        self.losses[trainer.global_step - 1] = float(outputs["loss"])


def train(flags, folder, monkeypatch, *extra, crash_before=None):
    record = Record(crash_before)
    build = general.build_trainer

    def build_recording(*args):
        trainer = build(*args)
        # An abandoned progress bar would print after the test runner's closing line.
        bars = [bar for bar in trainer.callbacks if isinstance(bar, ProgressBar)]
        trainer.callbacks[:] = [record, *(c for c in trainer.callbacks if c not in bars)]
        return trainer

    monkeypatch.setattr(general, "build_trainer", build_recording)
    config = parse_config(
        general.GeneralTrainingConfig, [*flags, "--save_dir", str(folder), *extra]
    )
    try:
        general.run_general_training(config)
    except RuntimeError as error:
        assert str(error) == "crash"
    finally:
        monkeypatch.setattr(general, "build_trainer", build)
    return record, folder / config.run.expname / "ckpts" / "last.ckpt"


@pytest.fixture(scope="module")
def uninterrupted(tiny_flags, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield train(tiny_flags, tmp_path_factory.mktemp("whole"), monkeypatch)


def test_a_run_leaves_what_the_readme_says(uninterrupted):
    _, path = uninterrupted
    folder = path.parent.parent
    assert len(list((folder / "ckpts").glob("epoch=*/*.ckpt"))) == 1
    pictures = sorted((folder / "pictures").glob("*.png"))
    assert [picture.name[:12] for picture in pictures] == [
        f"step={step:07d}" for step in (5, 10, 15)
    ]
    # Two or three sources of 80x64, truth, prediction, error, depth and true depth in a row.
    assert imageio.imread(pictures[0]).shape == (64, 8 * 80, 3)
    events = EventAccumulator(str(folder / "logs"))
    events.Reload()
    assert {"val/PSNR", "val/depth_error"} <= set(events.Tags()["scalars"])
    assert "val/scan2_view004" in events.Tags()["images"]


def same_weights(one, other):
    a, b = load_safely(one), load_safely(other)
    assert a["global_step"] == b["global_step"] == 15
    assert a["state_dict"].keys() == b["state_dict"].keys()
    assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"])
    moments_a, moments_b = a["optimizer_states"][0]["state"], b["optimizer_states"][0]["state"]
    for key in moments_a:
        assert torch.equal(moments_a[key]["exp_avg_sq"], moments_b[key]["exp_avg_sq"])


# 15 steps, epochs of 5, last.ckpt at every second step and at the end of every epoch.
@pytest.mark.parametrize("crash_before", [3, 5, 6, 9, 10, 14])
def test_crash_and_resume(tiny_flags, tmp_path, monkeypatch, uninterrupted, crash_before):
    whole, whole_path = uninterrupted
    first, path = train(tiny_flags, tmp_path, monkeypatch, crash_before=crash_before)
    assert max(first.losses) == crash_before - 1
    second, path = train(tiny_flags, tmp_path, monkeypatch, "--ckpt", str(path))
    assert max(second.losses) == 14 and min(second.losses) >= crash_before - 2
    for step, loss in {**first.losses, **second.losses}.items():
        assert loss == whole.losses[step], step
    assert {**first.rates, **second.rates} == whole.rates
    same_weights(whole_path, path)


def test_resume_of_a_finished_run_changes_nothing(tiny_flags, tmp_path, monkeypatch, uninterrupted):
    _, whole_path = uninterrupted
    record, path = train(tiny_flags, tmp_path, monkeypatch, "--ckpt", str(whole_path))
    assert not record.losses


def test_resume_twice(tiny_flags, tmp_path, monkeypatch, uninterrupted):
    _, whole_path = uninterrupted
    _, path = train(tiny_flags, tmp_path, monkeypatch, crash_before=4)
    _, path = train(tiny_flags, tmp_path, monkeypatch, "--ckpt", str(path), crash_before=12)
    _, path = train(tiny_flags, tmp_path, monkeypatch, "--ckpt", str(path))
    same_weights(whole_path, path)


def test_a_new_run_in_an_old_folder_leaves_the_old_one_its_file(tiny_flags, tmp_path, monkeypatch):
    _, path = train(tiny_flags, tmp_path, monkeypatch, crash_before=4)
    old = path.read_bytes()
    train(tiny_flags, tmp_path, monkeypatch, "--seed", "1", crash_before=4)
    assert path.with_name("last.1.ckpt").read_bytes() == old != path.read_bytes()
    train(tiny_flags, tmp_path, monkeypatch, "--seed", "1", "--ckpt", str(path), crash_before=6)
    assert not path.with_name("last.2.ckpt").exists()


def test_a_run_from_before_a_setting_existed_resumes(
    tiny_flags, tmp_path, monkeypatch, uninterrupted, caplog
):
    _, path = train(tiny_flags, tmp_path, monkeypatch, crash_before=12)
    content = load_safely(path)
    del content["vggt_nerf"]["settings"]["model"]["rendering"]["sampling_spread"]
    del content["vggt_nerf"]["settings"]["data"]["near_far"]
    save_atomically(content, path)
    _, path = train(tiny_flags, tmp_path, monkeypatch, "--ckpt", str(path))
    assert "near_far" not in caplog.text
    same_weights(uninterrupted[1], path)


def test_init_ckpt_starts_a_new_run_from_the_weights(
    tiny_flags, tmp_path, monkeypatch, uninterrupted
):
    _, whole_path = uninterrupted
    flags = [*tiny_flags, "--init_ckpt", str(whole_path), "--lrate", "1e-12"]
    record, path = train(flags, tmp_path, monkeypatch)
    assert min(record.losses) == 0 and max(record.losses) == 14
    old, new = load_safely(whole_path)["state_dict"], load_safely(path)["state_dict"]
    assert all(torch.allclose(old[key], new[key], atol=1e-8) for key in old)


def test_init_ckpt_of_another_backbone_says_so_and_goes_on(
    tiny_flags, tmp_path, monkeypatch, caplog, uninterrupted
):
    content = load_safely(uninterrupted[1])
    content["vggt_nerf"]["backbone_fingerprint"] = "0" * 16
    save_atomically(content, tmp_path / "other.ckpt")
    flags = [*tiny_flags, "--init_ckpt", str(tmp_path / "other.ckpt"), "--num_epochs", "1"]
    record, _ = train(flags, tmp_path, monkeypatch)
    assert len(record.losses) == 5
    assert "another backbone (fingerprint 0000" in caplog.text


def test_tuned_blocks_learn_and_come_back(tiny_flags, tmp_path, monkeypatch):
    flags = [*tiny_flags, "--tuned_blocks", "1", "--num_epochs", "1"]
    _, path = train(flags, tmp_path, monkeypatch)
    checkpoint = read_checkpoint(str(path))
    ups = [value for name, value in checkpoint.weights.items() if ".up." in name]
    assert ups and any(value.abs().max() > 0 for value in ups)
    model = checkpoint.build_model()
    for name, value in checkpoint.weights.items():
        torch.testing.assert_close(model.state_dict()[name], value)


def test_one_source_is_enough_when_all_others_are_left_out(tiny_flags, tmp_path, monkeypatch):
    losses = []
    for share in ("0", "1"):
        flags = [*tiny_flags, "--source_dropout", share, "--num_epochs", "1"]
        record, _ = train(flags, tmp_path / share, monkeypatch)
        assert len(record.losses) == 5
        losses.append(record.losses[0])
    assert all(math.isfinite(loss) for loss in losses) and losses[0] != losses[1]


def test_an_export_renders_like_the_checkpoint(tmp_path, uninterrupted):
    exported = export_checkpoint(uninterrupted[1], tmp_path / "shipped")
    theirs = load_safely(uninterrupted[1])["vggt_nerf"]["settings"]["data"]["datadir"]
    assert theirs not in str(load_safely(exported)["vggt_nerf"])
    assert exported.stat().st_size < 0.6 * uninterrupted[1].stat().st_size
    ours, theirs = read_checkpoint(str(exported)), read_checkpoint(str(uninterrupted[1]))
    assert replace(ours, path=theirs.path, weights={}) == replace(theirs, weights={})
    for name, value in theirs.weights.items():
        torch.testing.assert_close(ours.weights[name], value)


def test_an_export_says_where_and_how_its_backbone_looks_and_how_rays_are_sampled(
    tmp_path, uninterrupted
):
    sampling = {"N_samples": 3, "sampling_spread": False}
    where = tmp_path / "shipped", "./elsewhere", 42
    exported = export_checkpoint(uninterrupted[1], *where, sampling)
    found = read_checkpoint(str(exported))
    backbone = found.backbone_config
    assert (backbone.vggt_path, backbone.backbone_size) == ("./elsewhere", 42)
    rendering = found.model_config.rendering
    assert (rendering.N_samples, rendering.sampling_spread) == (3, False)


def test_an_export_cannot_be_resumed(tiny_flags, tmp_path, monkeypatch, uninterrupted):
    exported = export_checkpoint(uninterrupted[1], tmp_path / "shipped")
    with pytest.raises(UserError, match="without its optimiser.*--init_ckpt"):
        train([*tiny_flags, "--ckpt", str(exported)], tmp_path, monkeypatch)


def test_the_ablation_without_a_backbone_trains_and_comes_back(tiny_flags, tmp_path, monkeypatch):
    flags = [*tiny_flags, "--backbone", "none", "--num_epochs", "1", "--vggt_path", "absent"]
    record, path = train(flags, tmp_path, monkeypatch)
    assert len(record.losses) == 5
    checkpoint = read_checkpoint(str(path))
    assert checkpoint.backbone_config.backbone == "none"
    assert checkpoint.build_model().backbone.fingerprint == "none"
    with pytest.raises(UserError, match="another (backbone|model)"):
        train([*tiny_flags, "--init_ckpt", str(path)], tmp_path, monkeypatch)


def start(flags, folder):
    command = [sys.executable, "train_vggt_nerf_pl.py", *flags, "--save_dir", str(folder)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(path, process, seconds=90):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_signals(tiny_flags, tmp_path, monkeypatch, uninterrupted, signum):
    path = tmp_path / "vggt_mvs_general_train_v1" / "ckpts" / "last.ckpt"
    process = start([*tiny_flags, "--save_every", "1"], tmp_path)
    wait_for(path, process)
    os.kill(process.pid, signum)
    output = process.communicate(timeout=90)[0]
    assert process.returncode == (-9 if signum == signal.SIGKILL else 128 + signum), output
    step = load_safely(path)["global_step"]
    assert step < 15
    if signum != signal.SIGKILL:
        assert f"resume with --ckpt {path}" in output
        assert "Traceback" not in output
    _, path = train(tiny_flags, tmp_path, monkeypatch, "--ckpt", str(path))
    same_weights(uninterrupted[1], path)


def test_other_model_settings_are_refused(tiny_flags, uninterrupted, tmp_path):
    _, whole_path = uninterrupted
    flags = [*tiny_flags, "--field_width", "16", "--ckpt", str(whole_path)]
    process = start(flags, tmp_path)
    output = process.communicate(timeout=90)[0]
    assert process.returncode == 2
    assert "model.radiance_field.field_width=16 here, 8 there" in output
    assert "Traceback" not in output
