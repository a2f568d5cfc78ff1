"""The commands on the pages: flags and config files as they are typed there; nothing is run."""

import importlib
import re
from pathlib import Path

import pytest

from benchmarks.readme_commands import commands_of
from utils import config

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "data/README.md",
    "ckpts/README.md",
    "docs/training.md",
    "docs/rendering.md",
    "docs/lessons.md",
)
MAINS = {"benchmarks.faults": "benchmarks.faults.__main__"}
COMMANDS = [(page, words) for page in PAGES for words in commands_of(ROOT / page)]


def test_the_pages_have_commands():
    assert {page for page, _ in COMMANDS} == set(PAGES) and len(COMMANDS) > 30


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page, words", COMMANDS, ids=lambda value: " ".join(value)[:60])
def test_commands_are_accepted(page, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(config, "run_and_report", lambda run, settings: 0)
    if words[0] == "-m":
        name, flags = words[1], words[2:]
    else:
        name, flags = words[0].removesuffix(".py"), words[1:]
    main = importlib.import_module(MAINS.get(name, name)).main
    if main.__module__ == "utils.config":
        assert main(flags) == 0


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).exists(), target
