"""The picture of PSNR against seconds."""

import json
import sys

import pytest
from PIL import Image

from benchmarks import training_curves


def test_curves_of_two_runs(tmp_path, monkeypatch, capsys):
    for number, name in enumerate(("fern", "fox")):
        rows = [
            {"step": step, "seconds": step / 10, "psnr": 20.0 + number + step / 100}
            for step in (0, 100, 100, 200)
        ]
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "curve.json").write_text(json.dumps(rows))
    out = tmp_path / "pictures" / "curves.png"
    folders = [str(tmp_path / name / "run") for name in ("fern", "fox")]
    monkeypatch.setattr(sys, "argv", ["training_curves", *folders, "--out", str(out)])
    training_curves.main()
    assert "20.00 -> 22.00 in 20 s" in capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.width > 300


def test_a_folder_without_a_curve(tmp_path):
    with pytest.raises(SystemExit, match=r"curve\.json"):
        training_curves.read_curve(tmp_path, "val/PSNR")
