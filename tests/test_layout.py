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
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    if not any(listed):
        listed = [
            str(path.relative_to(ROOT)) for layer in LAYERS for path in (ROOT / layer).rglob("*.py")
        ]
    return [ROOT / name for name in listed if name and (ROOT / name).exists()]


def imports_of(path):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


def test_imports_point_one_way():
    wrong = []
    for path in python_files():
        layer = path.relative_to(ROOT).parts[0]
        if layer not in LAYERS:
            continue
        allowed = set(LAYERS[: LAYERS.index(layer) + 1])
        for name in imports_of(path):
            top = name.split(".")[0]
            if (top in LAYERS and top not in allowed) or top in EXTERNAL_BLOCKED:
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_top_level_packages_are_ours():
    for package in (utils, datasets, models):
        assert Path(str(package.__file__)).parent.parent == ROOT


def test_files_stay_small_and_have_no_wildcard_imports():
    for path in python_files():
        text = path.read_text()
        assert text.count("\n") <= 300, path
        assert "import *" not in text or path == Path(__file__), path


def test_code_folders_are_not_ignored_by_git():
    names = ["datasets/data/x.py", "tests/data/x.png", "models/ckpts/x.py", "asset/x.png"]
    for name in names:
        run = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT)
        assert run.returncode != 0, name
    for name in ["data/dtu/x", "ckpts/VGGT-1B/model.safetensors", "runs_new/a/b"]:
        run = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT)
        assert run.returncode in (0, 128), name
