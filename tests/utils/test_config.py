from dataclasses import asdict, dataclass, field
from typing import Literal

import pytest

from utils.config import differing_settings, parse_config


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
    assert config.part.width == 32 and config.flag and config.part.sizes == (3, 4)
    assert config.part.kind == "a" and config.name is None


def test_help_shows_field_docs(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_config(Whole, ["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "channels (100 % of them)" in out and "--flag" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--widht", "3"], "did you mean --width"),
        (["--width", "x"], "invalid int value"),
        (["--kind", "c"], "invalid choice"),
        (["--flag", "maybe"], "--flag"),
        (["--width", "0"], "width=0 must be positive"),
        (["--wid", "3"], "unknown flag"),
    ],
)
def test_refuses_what_it_does_not_know(argv, message, capsys):
    with pytest.raises(SystemExit) as stop:
        parse_config(Whole, argv)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_refuses_unknown_config_key(tmp_path, capsys):
    file = tmp_path / "c.txt"
    file.write_text("wdith = 16\n")
    with pytest.raises(SystemExit) as stop:
        parse_config(Whole, ["--config", str(file)])
    assert stop.value.code == 2
    assert "wdith" in capsys.readouterr().err


def test_differing_settings_names_leaves():
    rows = differing_settings(asdict(Whole()), asdict(Whole(Part(9), flag=True)))
    assert rows == [("flag", False, True), ("part.width", 8, 9)]
