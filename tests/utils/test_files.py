import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import utils.files
from utils.errors import UserError
from utils.files import (
    check_output_folder,
    from_repository,
    load_safely,
    resolve_checkpoint,
    save_atomically,
    set_aside,
)


def names_in(folder):
    return [file.name for file in folder.iterdir()]


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "x.ckpt"
    save_atomically({"a": torch.arange(3), "b": [1, "x", None]}, path)
    content = load_safely(path)
    assert torch.equal(content["a"], torch.arange(3)) and content["b"] == [1, "x", None]
    assert names_in(path.parent) == ["x.ckpt"]


def test_a_file_that_is_replaced_while_it_is_read_is_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "x.ckpt"
    save_atomically({"a": torch.zeros(10)}, path)
    check = utils.files.check_archive

    def check_and_replace(*arguments):
        check(*arguments)
        save_atomically({"a": torch.ones(1).expand(99)}, path)

    monkeypatch.setattr(utils.files, "check_archive", check_and_replace)
    assert torch.equal(load_safely(path)["a"], torch.zeros(10))


def test_what_is_not_written_to_its_end_is_no_checkpoint(tmp_path):
    partial = tmp_path / ".partial-1-0-last.ckpt"
    partial.touch()
    with pytest.raises(UserError, match="a folder without .ckpt files .no .ckpt file under"):
        resolve_checkpoint(str(tmp_path))
    save_atomically({"a": 1}, tmp_path / "last.ckpt")
    os.utime(tmp_path / "last.ckpt", (1, 1))
    assert resolve_checkpoint(str(tmp_path)).name == "last.ckpt"


UNREADABLE = ("plain", "half", "empty", "list", "absent")


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def test_files_that_are_hostile_truncated_missing_or_foreign(tmp_path):
    trap = tmp_path / "trap"
    torch.save({"state_dict": Evil(trap)}, tmp_path / "evil.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Evil(trap), protocol=2))
    save_atomically({"a": torch.zeros(10000)}, tmp_path / "whole.ckpt")
    data = (tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.ckpt").write_bytes(b"")
    torch.save([1], tmp_path / "list.ckpt")
    for name in ("evil.ckpt: refused", *(f"{kind}.ckpt" for kind in UNREADABLE)):
        with pytest.raises(UserError, match=name):
            load_safely(tmp_path / name.split(":")[0])
    assert not trap.exists()


# A file-size limit fails writes as a full disk does: part of the file is already written.
FULL_DISK = """
import resource, signal, sys, torch
from utils.files import save_atomically
from utils.errors import UserError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    save_atomically({"a": torch.zeros(100000)}, sys.argv[1])
except UserError as error:
    print(error)
    sys.exit(7)
"""


def test_full_disk_keeps_the_old_file(tmp_path):
    path = tmp_path / "x.ckpt"
    save_atomically({"a": 1}, path)
    command = [sys.executable, "-c", FULL_DISK, str(path)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 7, run.stderr
    assert "previous x.ckpt is untouched" in run.stdout
    assert load_safely(path) == {"a": 1} and names_in(tmp_path) == ["x.ckpt"]


def test_newest_epoch_placeholder(tmp_path):
    for epoch in (2, 9, 10):
        save_atomically({"e": epoch}, tmp_path / f"ckpts/epoch={epoch:02d}/a-{epoch}.ckpt")
    folder = f"{tmp_path}/ckpts/epoch={{epoch:02d}}"
    assert load_safely(resolve_checkpoint(folder))["e"] == 10
    assert "epoch=02" in str(resolve_checkpoint(f"{folder}/a-2.ckpt"))
    absent = f"{tmp_path}/none/epoch={{epoch:02d}}"
    for path, words in ((f"{folder}/absent.ckpt", "a-10.ckpt"), (absent, "does not exist")):
        with pytest.raises(UserError, match=words):
            resolve_checkpoint(path)


def test_unwritable_folder_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write here"):
        check_output_folder(tmp_path / "file" / "runs")
    assert check_output_folder(tmp_path / "new").is_dir()


def test_what_another_run_left_is_kept_under_the_next_number(tmp_path):
    mine = tmp_path / "last.ckpt"
    set_aside(mine)
    for content in ("first", "second"):
        mine.write_text(content)
        set_aside(mine)
    kept = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert kept == {"last.1.ckpt": "first", "last.2.ckpt": "second"}


def test_names_that_no_file_can_have_are_not_there():
    assert from_repository("x" * 5000) == Path("x" * 5000)
