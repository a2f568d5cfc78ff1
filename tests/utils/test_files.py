import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from utils.checkpoints import load_safely, resolve_checkpoint, save_atomically
from utils.errors import UserError
from utils.files import check_output_folder, from_repository, set_aside, shell_command


def names_in(folder):
    return [file.name for file in folder.iterdir()]


def test_round_trip(tmp_path):
    path = tmp_path / "deep" / "x.ckpt"
    save_atomically({"a": torch.arange(3), "b": [1, "x", None]}, path)
    content = load_safely(path)
    assert torch.equal(content["a"], torch.arange(3)) and content["b"] == [1, "x", None]
    assert names_in(path.parent) == ["x.ckpt"]


READ_ERRORS = ("plain", "half", "empty", "list", "absent")


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
    for name in ("evil.ckpt: refused", *(f"{kind}.ckpt" for kind in READ_ERRORS)):
        with pytest.raises(UserError, match=name):
            load_safely(tmp_path / name.split(":")[0])
    assert not trap.exists()


# A file-size limit fails writes as a full disk does: part of the file is already written.
FULL_DISK = """
import resource, signal, sys, torch
from utils.checkpoints import save_atomically
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


def test_commands_are_for_the_working_directory(tmp_path, monkeypatch):
    root = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(root)
    assert shell_command("view.py", "--datadir", Path("a b")) == "python view.py --datadir 'a b'"
    monkeypatch.chdir(tmp_path)
    for script in ("reconstruct.py", "-m apps.make_shards"):
        command = shell_command(script, "--help").replace("python ", f"{sys.executable} ")
        assert subprocess.run(command, shell=True, stdout=subprocess.DEVNULL).returncode == 0
