"""The house rules that a reader of the code relies on."""

import ast
import subprocess
from pathlib import Path

import datasets
import models
import utils

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ["utils", "datasets", "models", "evaluation", "training", "apps"]
EXTERNAL_BLOCKED = {"transformers", "vggt", "diffusers"}


def python_files():
    """Names and contents of all that git does not ignore; without git, of the layers."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    if not listed:
        paths = (path for layer in LAYERS for path in (ROOT / layer).rglob("*.py"))
        listed = [path.relative_to(ROOT) for path in paths]
    return {Path(name): (ROOT / name).read_text() for name in listed if (ROOT / name).exists()}


def imports_of(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def test_imports_point_one_way():
    wrong = []
    for path, text in python_files().items():
        if path.parts[0] in LAYERS:
            higher = LAYERS[LAYERS.index(path.parts[0]) + 1 :]
            tops = {name.split(".")[0] for name in imports_of(text)}
            wrong += [f"{path} imports {top}" for top in tops & {*higher, *EXTERNAL_BLOCKED}]
    assert not wrong


def test_top_level_packages_are_ours():
    for package in (utils, datasets, models):
        assert Path(str(package.__file__)).parent.parent == ROOT


def test_files_stay_small_and_have_no_wildcard_imports():
    for path, text in python_files().items():
        assert text.count("\n") <= 300, path
        assert "import *" not in text or path.name == Path(__file__).name, path


def test_code_folders_are_not_ignored_by_git():
    # 128: this is no git repository.
    kept = ["datasets/data/x.py", "tests/data/x.png", "models/ckpts/x.py", "asset/x.png"]
    ignored = ["data/dtu/x", "ckpts/VGGT-1B/model.safetensors", "runs_new/a/b"]
    for names, statuses in ((kept, (1, 128)), (ignored, (0, 128))):
        for name in names:
            run = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT)
            assert run.returncode in statuses, name
