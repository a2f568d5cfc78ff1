"""What a process of a training does when another one is lost."""

import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies.launchers import subprocess_script
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from training import rank_failure
from training.checkpointing import LastCheckpoint
from training.rank_failure import end_on_lost_rank
from utils.errors import UserError


class Trainer(pl.Trainer):
    """What the watch asks of Lightning's."""

    strategy = callbacks = global_rank = None

    def __init__(self, launcher, callbacks, rank):
        self.strategy = SimpleNamespace(launcher=launcher)
        self.callbacks, self.global_rank = callbacks, rank


ENDS = {"killed": "import os; os.kill(os.getpid(), 9)", "failed": "exit(3)", "done": "exit(0)"}


@pytest.fixture
def ended(monkeypatch):
    """Set with the status when this process would end."""
    event = threading.Event()

    def end(status):
        event.status = status
        event.set()

    monkeypatch.setattr(rank_failure.os, "_exit", end)
    monkeypatch.setattr(rank_failure, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(rank_failure, "_GRACE_SECONDS", 0.2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    return event


@pytest.fixture
def start(tmp_path):
    """Start the others of a training: returns its trainer and their processes."""
    started = []

    def begin(*programs, rank=0):
        launcher = None
        if rank == 0:
            launcher = _SubprocessScriptLauncher(LightningEnvironment(), 1 + len(programs), 1)
            launcher.procs = [subprocess.Popen([sys.executable, "-c", code]) for code in programs]
            started.extend(launcher.procs)
        return Trainer(launcher, [LastCheckpoint(tmp_path, 1)], rank)

    yield begin
    for process in started:
        process.kill()
        process.wait()


def launch(trainer):
    """Do as Lightning does when it has started the others."""
    subprocess_script._launch_process_observer(trainer.strategy.launcher.procs)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("killed", "process 1 was ended by SIGKILL (has memory run out?), which trained together"),
        ("failed", "process 1 failed with exit status 3, which trained together"),
    ],
)
def test_it_ends_when_another_is_lost(how, told, start, ended, caplog, tmp_path):
    trainer = start(ENDS[how], "import time; time.sleep(60)")
    (tmp_path / "last.ckpt").touch()
    usual = subprocess_script._launch_process_observer
    with end_on_lost_rank(trainer):
        launch(trainer)
        assert ended.wait(30)
        assert ended.status == 1
    assert told in caplog.text and f"resume with --ckpt {tmp_path / 'last.ckpt'}" in caplog.text
    assert trainer.strategy.launcher.procs[1].wait(30) == -9
    assert subprocess_script._launch_process_observer is usual
    assert rank_failure._LAUNCHER not in os.environ


def test_an_error_of_pytorch_waits_for_the_loss(start, ended, caplog, monkeypatch):
    # Long enough for a machine under load.
    monkeypatch.setattr(rank_failure, "_POLL_SECONDS", 1.0)
    trainer = start(ENDS["killed"])
    with pytest.raises(RuntimeError, match="Connection reset"), end_on_lost_rank(trainer):
        launch(trainer)
        trainer.strategy.launcher.procs[0].wait()
        raise RuntimeError("Connection reset by peer")
    assert ended.is_set() and "process 1 was ended by SIGKILL" in caplog.text
    assert "start again" in caplog.text


def test_others_that_are_done_are_not_missed(start, ended):
    trainer = start(ENDS["done"])
    with end_on_lost_rank(trainer):
        launch(trainer)
        trainer.strategy.launcher.procs[0].wait()
        assert not ended.wait(0.6)


def test_an_error_of_its_own_is_what_is_told(start, ended, caplog):
    trainer = start(ENDS["failed"])
    with pytest.raises(UserError), end_on_lost_rank(trainer):
        launch(trainer)
        raise UserError("a.png: is missing")
    assert not ended.wait(0.6) and not caplog.text


@pytest.mark.parametrize("gone", [True, False])
def test_others_end_with_the_first(gone, start, ended, monkeypatch, caplog):
    monkeypatch.setenv(rank_failure._LAUNCHER, str(os.getppid() + gone))
    with end_on_lost_rank(start(rank=1)):
        assert ended.wait(5 if gone else 0.6) == gone
    assert ("process 0 is gone" in caplog.text) == gone


def test_other_launchers_watch_over_theirs(start, ended):
    with end_on_lost_rank(start(rank=1)):
        assert not ended.wait(0.3)
