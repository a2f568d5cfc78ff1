"""The same scene through different readers: the same tasks and the same figures."""

import pytest

from models.evaluation.config import EvaluationConfig
from models.evaluation.photographs import READERS
from models.evaluation.rendering import task_sample
from models.evaluation.run import run_evaluation
from utils.config import parse_config

RANGE = ("--near_far", "240", "1080")
"""LLFF's margins about the bounds of the scene that the tests write."""


@pytest.fixture(scope="module")
def choices(tmp_path_factory, write_layout):
    root = tmp_path_factory.mktemp("readers")
    flags = {}
    for name in ("llff", "transforms", "colmap"):
        write_layout(name, root / name / "scene")
        size = ("--image_size", "64", "80")
        flags[name] = ["--dataset_name", name, "--datadir", str(root / name), *size]
        flags[name] += RANGE if name != "llff" else ()
    return flags


def test_tasks_are_the_same(choices):
    samples = []
    for name, flags in choices.items():
        (task,) = READERS[name](parse_config(EvaluationConfig, flags).data)
        assert task.targets == (0,)
        samples.append(task_sample(task, 0))
    for sample in samples[1:]:
        assert sample.source_ids == samples[0].source_ids
        assert (sample.sources.images == samples[0].sources.images).all()
        assert sample.near_far.tolist() == pytest.approx(samples[0].near_far.tolist())


def test_figures_are_the_same(choices, tiny_checkpoint, tmp_path):
    tables = []
    for flags in choices.values():
        common = ["--ckpt", str(tiny_checkpoint), "--accelerator", "cpu"]
        out = ["--out", str(tmp_path / "x.json")]
        table = run_evaluation(parse_config(EvaluationConfig, [*flags, *common, *out]))
        (row,) = [line for line in table.splitlines() if line.startswith("scene ")]
        # Scene, views, PSNR, SSIM; after them depth, which not all formats have, and seconds.
        tables.append(row.split()[:4])
    assert tables[0] and tables[0] == tables[1] == tables[2]
