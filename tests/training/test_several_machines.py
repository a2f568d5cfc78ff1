"""Training on two machines of one device each, which here are processes of this one."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_runs import same_run

from training.checkpointing import exclusive_run_folder
from utils.checkpoints import load_safely
from utils.files import LOCK_NAME

ROOT = Path(__file__).resolve().parents[2]
RANK_NAMES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "SLURM_PROCID")


def start(kind, folder, *flags, **environment):
    """Start the script as on a machine of its own."""
    usual = {name: value for name, value in os.environ.items() if name not in RANK_NAMES}
    argv = [kind.script, *kind.flags, "--save_dir", folder, "--strategy", "ddp", *flags]
    return subprocess.Popen(
        [sys.executable, *map(str, argv)],
        cwd=ROOT,
        env=usual | {name: str(value) for name, value in environment.items()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(kind, folder, starter, *flags):
    """Start a run on two machines of one device each, told of each other as a starter does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": probe.getsockname()[1]}
    for number in (0, 1):
        told = {
            # One command on each machine, as Lightning documents it.
            "by hand": {"NODE_RANK": number},
            "torchrun": {
                **{"RANK": number, "GROUP_RANK": number, "LOCAL_RANK": 0},
                **{"WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "test"},
            },
            "SLURM": {
                **{"SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 1, "SLURM_JOB_NAME": "train"},
                **{"SLURM_NODEID": number, "SLURM_PROCID": number, "SLURM_LOCALID": 0},
                **{"SLURM_NODELIST": "127.0.0.1", "SLURM_JOB_ID": 1, "SLURM_NNODES": 2},
            },
        }[starter]
        yield start(kind, folder, "--num_nodes", 2, *flags, **place, **told)


def end(processes):
    """Wait until all have ended well."""
    said = [process.communicate(timeout=240)[0] for process in processes]
    assert not any(process.returncode for process in processes), "\n\n".join(said)


@pytest.fixture(scope="module")
def on_one_machine(general, tmp_path_factory):
    """The file of a run on two devices of one machine."""
    folder = tmp_path_factory.mktemp("one")
    end([start(general, folder, "--devices", 2)])
    return folder / general.last


def test_two_machines_learn_what_two_devices_learn(general, on_one_machine, tmp_path):
    end([*start_two(general, tmp_path, "by hand")])
    assert same_run(general, on_one_machine, tmp_path / general.last)


def test_a_killed_run_of_two_machines_resumes_exactly(general, on_one_machine, tmp_path):
    path, deadline = tmp_path / general.last, time.monotonic() + 120
    machines = [*start_two(general, tmp_path, "SLURM")]
    while not path.exists():
        assert time.monotonic() < deadline and machines[0].poll() is None, end(machines)
        time.sleep(0.005)
    for machine in machines:
        machine.kill()
        machine.communicate()
    assert general.step_of(load_safely(path)) < general.steps
    end([*start_two(general, tmp_path, "torchrun", "--ckpt", path)])
    assert same_run(general, on_one_machine, path)


@pytest.mark.parametrize("name", ["NODE_RANK", "GROUP_RANK"])
def test_the_first_machine_alone_locks_the_folder(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with exclusive_run_folder(tmp_path):
        assert not (tmp_path / LOCK_NAME).exists()
    monkeypatch.setenv(name, "0")
    with exclusive_run_folder(tmp_path):
        assert (tmp_path / LOCK_NAME).exists()
