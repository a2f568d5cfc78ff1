"""A resumed run is the uninterrupted run, bit for bit, wherever it was cut; both trainings."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import same_run, train

from training.checkpointing import LastCheckpoint
from utils.checkpoints import load_safely, save_atomically
from utils.errors import TrainingInterrupted, UserError

ROOT = Path(__file__).resolve().parents[2]
KINDS = pytest.mark.parametrize("kind", ["general", "scene"], indirect=True)
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def kind(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    return {}


@pytest.fixture
def whole(kind, finished, tmp_path_factory):
    """Losses and file of the uninterrupted run, which is run once."""
    if kind.script not in finished:
        finished[kind.script] = train(kind, tmp_path_factory.mktemp("whole"))
    return finished[kind.script]


# General training has epochs of 3 steps; both write at every second step and at the end.
@pytest.mark.parametrize(
    ("kind", "cut"),
    [*(("general", step) for step in (2, 3, 4, 5, 6, 8)), *(("scene", s) for s in (2, 3, 4, 5))],
    indirect=["kind"],
)
def test_crash_and_resume(kind, cut, whole, tmp_path):
    first, path = train(kind, tmp_path, at=cut)
    assert max(first) == cut - 1
    second, path = train(kind, tmp_path, "--ckpt", path)
    assert max(second) == kind.steps - 1 and min(second) >= cut - 2
    assert all(whole[0][step] == loss for step, loss in [*first.items(), *second.items()])
    assert same_run(kind, whole[1], path)


@KINDS
def test_resume_twice(kind, whole, tmp_path):
    _, path = train(kind, tmp_path, at=2)
    _, path = train(kind, tmp_path, "--ckpt", path, at=kind.steps - 1)
    _, path = train(kind, tmp_path, "--ckpt", path)
    assert same_run(kind, whole[1], path)


@KINDS
def test_resume_of_a_finished_run_takes_no_step(kind, whole, tmp_path):
    losses, _ = train(kind, tmp_path, "--ckpt", whole[1])
    assert not losses


@KINDS
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_step_under_way(kind, whole, tmp_path, signum):
    handler = signal.getsignal(signum)
    with pytest.raises(TrainingInterrupted, match=f"resume with --ckpt {tmp_path / kind.last}"):
        train(kind, tmp_path, at=4, do=lambda: os.kill(os.getpid(), signum))
    path = tmp_path / kind.last
    assert kind.step_of(load_safely(path)) == 5
    _, path = train(kind, tmp_path, "--ckpt", path)
    assert same_run(kind, whole[1], path)
    assert signal.getsignal(signum) == handler


def test_a_second_signal_acts_at_once(monkeypatch, tmp_path):
    raised, callback = [], LastCheckpoint(tmp_path, every_n_steps=1)
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    for expected in ([], [signal.SIGINT]):
        callback._on_signal(signal.SIGINT, None)
        assert raised == expected


@pytest.mark.parametrize(
    ("kind", "signum"),
    [("general", signal.SIGINT), ("scene", signal.SIGKILL)],
    indirect=["kind"],
)
def test_a_script_that_is_killed_leaves_a_whole_file(kind, whole, tmp_path, signum):
    path = tmp_path / kind.last
    command = [sys.executable, kind.script, *kind.flags, "--save_dir", tmp_path, "--save_every", 1]
    process = subprocess.Popen(
        [str(text) for text in command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 90
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.005)
    os.kill(process.pid, signum)
    output = process.communicate(timeout=90)[0]
    assert process.returncode == (-9 if signum == signal.SIGKILL else 128 + signum), output
    assert kind.step_of(load_safely(path)) < kind.steps
    if signum != signal.SIGKILL:
        assert f"resume with --ckpt {path}" in output and "Traceback" not in output
    _, path = train(kind, tmp_path, "--ckpt", path, "--save_every", 1)
    assert same_run(kind, whole[1], path)


@KINDS
def test_a_new_run_in_an_old_folder_leaves_the_old_one_its_file(kind, tmp_path, caplog):
    _, path = train(kind, tmp_path, at=2)
    old = path.read_bytes()
    train(kind, tmp_path, "--seed", 1, at=4)
    assert path.with_stem(f"{path.stem}.1").read_bytes() == old != path.read_bytes()
    assert f"{path.name} is of an earlier run" in caplog.text
    train(kind, tmp_path, "--seed", 1, "--ckpt", path, at=5)
    assert not path.with_stem(f"{path.stem}.2").exists()


@pytest.mark.parametrize("kind", ["general"], indirect=True)
def test_a_run_from_before_a_setting_existed_resumes(kind, whole, tmp_path, caplog):
    _, path = train(kind, tmp_path, at=8)
    content = load_safely(path)
    del content["vggt_nerf"]["settings"]["model"]["rendering"]["sampling_spread"]
    del content["vggt_nerf"]["settings"]["data"]["near_far"]
    save_atomically(content, path)
    _, path = train(kind, tmp_path, "--ckpt", path)
    assert "near_far" not in caplog.text
    assert same_run(kind, whole[1], path)


def test_settings_that_the_state_does_not_fit_are_refused(general, tmp_path, caplog):
    _, path = train(general, tmp_path, at=2)
    with pytest.raises(UserError, match="model.radiance_field.field_width=16 here, 8 there"):
        train(general, tmp_path, "--field_width", 16, "--ckpt", path)
    train(general, tmp_path, "--lrate", 1e-3, "--ckpt", path, at=3)
    assert "changed settings: optimizer.lrate=0.001 here, 0.0005 there" in caplog.text
