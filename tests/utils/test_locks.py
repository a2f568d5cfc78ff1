import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from utils.checkpoints import load_safely, save_atomically
from utils.errors import UserError
from utils.files import atomic_write, locked_folder, remove_partial_files

# Its child, as a process that reads data, outlives it for a while.
HOLDER = """
import os, sys, time
from pathlib import Path
from utils.files import locked_folder
with locked_folder(Path(sys.argv[1]), ""):
    if os.fork():
        print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has locked the folder, in a group of its own."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    with process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield process
        os.killpg(process.pid, signal.SIGKILL)


def test_a_second_process_is_refused_until_the_first_is_dead(holder, tmp_path):
    words = f"{tmp_path}: .*process {holder.pid}.*Give it another name"
    with pytest.raises(UserError, match=words), locked_folder(tmp_path, "Give it another name."):
        pass
    holder.kill()
    holder.wait()
    with locked_folder(tmp_path, ""):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_folder_is_free_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), locked_folder(tmp_path, ""):
            raise KeyError


def test_writers_of_one_file_leave_one_of_theirs(tmp_path):
    path = tmp_path / "last.ckpt"

    def write(writer):
        for _ in range(5):
            save_atomically({"weights": torch.full((1000 + writer, 20), float(writer))}, path)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    weights = load_safely(path)["weights"]
    assert len(weights) == 1000 + weights[0, 0] and bool((weights == weights[0, 0]).all())
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_only_what_a_dead_process_began_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / "ckpts" / f".partial-{dead.pid}-0-last.ckpt"
    left.parent.mkdir()
    left.write_text("")
    foreign = tmp_path / ".partial-notes-of-mine"
    foreign.write_text("")
    with atomic_write(tmp_path / "x.txt") as mine:
        mine.write_text("kept")
        remove_partial_files(tmp_path)
    assert not left.exists() and foreign.exists()
    assert (tmp_path / "x.txt").read_text() == "kept"
