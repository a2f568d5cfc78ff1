import os
from dataclasses import dataclass

import pytest

from utils.config import parse_config
from utils.settings import Count, Settings


@dataclass(frozen=True)
class Config(Settings):
    steps: Count = 1
    """steps"""


def refusal(path, capsys, joined=False):
    argv = [f"--config={path}"] if joined else ["--config", str(path)]
    with pytest.raises(SystemExit) as stop:
        parse_config(Config, argv)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("joined", [True, False])
def test_fifos_devices_and_folders_are_refused_unread(tmp_path, capsys, joined):
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero", tmp_path):
        assert f"config file: {path}. Error: not a regular file" in refusal(path, capsys, joined)


def test_large_files_and_other_encodings_are_refused(tmp_path, capsys):
    path = tmp_path / "x.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert "larger than any file of settings" in refusal(path, capsys)
    path.write_bytes(b"steps = 2 # \xff\xfe")
    assert "save it as UTF-8" in refusal(path, capsys)
    path.write_text("steps = 2", encoding="utf-8")
    assert parse_config(Config, ["--config", str(path)]).steps == 2
