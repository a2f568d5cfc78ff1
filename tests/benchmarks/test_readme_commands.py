"""A command of README.md, run as its reader does; the benchmark runs all of them."""

import pytest

from benchmarks import readme_commands
from benchmarks.readme_commands import ROOT, ReadmeConfig, commands_of, run_all, smaller
from utils.errors import UserError


def test_every_command_of_the_readme_has_a_small_size():
    found = [smaller(words) for words in commands_of(ROOT / "README.md")]
    assert len(found) > 10
    (resumed,) = [words for words in found if "--ckpt" in words]
    assert resumed.index("--num_epochs") < len(resumed) and resumed[-2:] == ["--num_epochs", "2"]
    with pytest.raises(UserError, match=r"apps\.unknown has no small size"):
        smaller(["-m", "apps.unknown"])


def test_what_fails_is_named(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(readme_commands, "write_stand_ins", lambda folder: None)
    config = ReadmeConfig(only=("inspect_data --datadir data/my_scenes",), folder=str(tmp_path))
    with pytest.raises(UserError, match="1 of 1 commands failed: -m apps.inspect_data"):
        run_all(config)
    said = capfd.readouterr().out
    assert "FAILED" in said and "data/my_scenes: no such data folder" in said
    with pytest.raises(UserError, match="README.md has no such command"):
        run_all(ReadmeConfig(only=("nothing",)))


def test_a_command_of_the_readme_works(tmp_path, capfd):
    run_all(ReadmeConfig(only=("inspect_data --datadir data/my_scenes",), folder=str(tmp_path)))
    assert "ok" in capfd.readouterr().out
