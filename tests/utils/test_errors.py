"""How programs end: with one line and a status that says what happened."""

import errno
import signal
import sys

import pytest
import pytorch_lightning as pl

from training.checkpointing import LastCheckpoint
from training.config import FineTuningConfig
from utils.config import command
from utils.errors import first_line, run_and_report


def interrupted():
    raise KeyboardInterrupt


def ended_by_lightning():
    try:
        interrupted()
    except KeyboardInterrupt:
        sys.exit(1)


def ended_by_a_progress_bar():
    try:
        interrupted()
    except KeyboardInterrupt:
        try:
            raise RuntimeError("cannot join thread before it is started")
        finally:
            # Cleaning up may fail again.
            {}["absent"]


@pytest.mark.parametrize("job", [interrupted, ended_by_lightning, ended_by_a_progress_bar])
def test_ctrl_c_before_a_run_has_begun(job, caplog):
    assert run_and_report(job) == 130
    assert caplog.messages == ["stopped"]


def test_ctrl_c_while_a_job_is_imported(monkeypatch):
    monkeypatch.setattr("pkgutil.resolve_name", lambda name: interrupted())
    assert command(FineTuningConfig, "training.finetuning.run:run_finetuning", None)([]) == 130


def test_an_exit_that_nobody_asked_for_stays_one():
    with pytest.raises(SystemExit):
        run_and_report(lambda: sys.exit(3))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENOSPC])
def test_a_disk_that_is_full_or_gone(number, caplog):
    def fail():
        raise OSError(number, "what it says", "/runs/a/logs/events")

    assert run_and_report(fail) == 1
    assert "what it says: '/runs/a/logs/events'. Files that were saved before" in caplog.text


def test_other_errors_of_the_system_are_not_hidden():
    def fail():
        raise BrokenPipeError(errno.EPIPE, "broken")

    with pytest.raises(BrokenPipeError):
        run_and_report(fail)


@pytest.mark.parametrize("received", [False, True])
def test_sigterm_ends_a_run_that_checks_its_validation(received, monkeypatch, tmp_path):
    handlers, raised = [], []
    monkeypatch.setattr(signal, "signal", lambda *handler: handlers.append(handler))
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer._signal_connector.received_sigterm = received
    LastCheckpoint(tmp_path, 1).on_sanity_check_start(trainer, pl.LightningModule())
    assert handlers == [(signal.SIGTERM, signal.SIG_DFL)]
    assert raised == [signal.SIGTERM] * received


def test_what_other_libraries_say_is_cut_to_a_line():
    assert first_line(ValueError("\nbad header\nin 'x'")) == "bad header"
    assert first_line(ValueError(" ")) == "ValueError"
    assert first_line(KeyError("x" * 5000)) == repr("x" * 5000)[:200]
