from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from datasets.config import SceneConfig
from datasets.data_source import parse_source
from training.config import GeneralTrainingConfig
from utils.config import differing_settings, parse_config
from utils.files import from_repository


@dataclass(frozen=True)
class Part:
    width: int = 8
    """channels (100 % of them)"""
    kind: Literal["a", "b"] = "a"
    """which one"""
    sizes: tuple[int, ...] = (1, 2)
    """several"""

    def __post_init__(self):
        if self.width < 1:
            raise ValueError(f"width={self.width} must be positive")


@dataclass(frozen=True)
class Whole:
    part: Part = field(default_factory=Part)
    name: str | None = None
    """a name"""
    flag: bool = False
    """a switch"""


def test_flag_beats_file_beats_default(tmp_path):
    file = tmp_path / "c.txt"
    file.write_text("# why\nwidth = 16\nflag = true\nsizes = [3, 4]\n")
    config = parse_config(Whole, ["--config", str(file), "--width", "32"])
    assert config == Whole(Part(32, "a", (3, 4)), None, True)


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["--help"], 0, "channels (100 % of them)"),
        (["--help"], 0, "--flag"),
        (["--widht", "3"], 2, "did you mean --width"),
        (["--width", "x"], 2, "invalid int value"),
        (["--kind", "c"], 2, "invalid choice"),
        (["--flag", "maybe"], 2, "--flag"),
        (["--width", "0"], 2, "width=0 must be positive"),
        (["--wid", "3"], 2, "unknown flag"),
        (["--config", "unknown_key.txt"], 2, "wdith"),
    ],
)
def test_help_and_refusals(argv, status, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unknown_key.txt").write_text("wdith = 16\n")
    with pytest.raises(SystemExit) as stop:
        parse_config(Whole, argv)
    said = capsys.readouterr()
    assert stop.value.code == status
    assert message in (said.err if status else said.out)


def test_differing_settings_names_leaves():
    rows = differing_settings(asdict(Whole()), asdict(Whole(Part(9), flag=True)))
    assert rows == [("flag", False, True), ("part.width", 8, 9)]


def test_a_tilde_is_the_home_folder_wherever_it_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.txt").write_text("datadir = ~/data/scene\n")
    flags = ["--config", str(tmp_path / "mine.txt"), "--scan=a~b"]
    config = parse_config(SceneConfig, flags)
    assert (config.datadir, config.scan) == (f"{tmp_path}/data/scene", "a~b")
    assert parse_config(SceneConfig, ["--datadir=~/x"]).datadir == f"{tmp_path}/x"
    monkeypatch.setenv("PLACE", "data")
    assert parse_config(SceneConfig, ["--datadir=$HOME/${PLACE}"]).datadir == f"{tmp_path}/data"
    assert parse_config(SceneConfig, ["--datadir=/a$b"]).datadir == "/a$b"
    for flags in (["--config", "~/mine.txt"], ["--config=~/mine.txt"]):
        assert parse_config(SceneConfig, flags).datadir == f"{tmp_path}/data/scene"
    mixed = parse_source("dtu:~/data/dtu,weight=2")
    assert (mixed.folder, mixed.weight) == (tmp_path / "data/dtu", 2)


def test_what_lies_in_the_repository_is_found_from_anywhere(tmp_path, monkeypatch):
    repository = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)
    assert from_repository("configs/lists") == repository / "configs/lists"
    assert SceneConfig(datadir="configs/lists").root == repository / "configs/lists"
    assert from_repository("absent/x") == Path("absent/x")
    for flags in (["--config", "configs/demo_general.txt"], ["--config=configs/demo_general.txt"]):
        assert parse_config(GeneralTrainingConfig, flags).data.datadir == "runs_demo/data"
    (tmp_path / "configs/lists").mkdir(parents=True)
    assert from_repository("configs/lists") == Path("configs/lists")
