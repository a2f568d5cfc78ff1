"""The same scene through different readers: the same tasks and the same figures."""

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.formats.dtu import FAR_MARGIN
from datasets.protocols import scene_tasks
from evaluation.config import EvaluationConfig
from evaluation.rendering import Renderer, task_sample
from evaluation.run import run_evaluation
from models.checkpoint import read_checkpoint
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
    for flags in choices.values():
        (task,) = scene_tasks(parse_config(EvaluationConfig, flags).data)
        assert task.targets == (0,)
        samples.append(task_sample(task, 0))
    for sample in samples[1:]:
        assert sample.source_ids == samples[0].source_ids
        assert (sample.sources.images == samples[0].sources.images).all()
        assert sample.near_far.tolist() == pytest.approx(samples[0].near_far.tolist())


def test_figures_are_the_same(choices, tiny_checkpoint, tmp_path):
    tables = []
    for flags in choices.values():
        common = ["--ckpt", str(tiny_checkpoint), "--device", "cpu"]
        out = ["--out", str(tmp_path / "x.json")]
        table = run_evaluation(parse_config(EvaluationConfig, [*flags, *common, *out]))
        (row,) = [line for line in table.splitlines() if line.startswith("scene ")]
        # Scene, views, PSNR, SSIM; after them depth, which not all formats have, and seconds.
        tables.append(row.split()[:4])
    assert tables[0] and tables[0] == tables[1] == tables[2]


NEAR, FAR = 240.0, 1080.0
SOURCES = (1, 2, 3, 4)


def opaque(folder):
    for file in folder.rglob("r_*.png"):
        Image.fromarray(np.array(Image.open(file))[..., :3]).save(file)


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory, write_layout, centered_dtu):
    """The same pixels and cameras in every layout there is, each in the form it is known in."""
    root = tmp_path_factory.mktemp("everywhere")
    # JPEG changes pixels: what it leaves of them is written to the other layouts.
    first = write_layout("blendedmvs", root / "blendedmvs" / "scene")
    for file in (first / "cams").glob("*_cam.txt"):
        lines = file.read_text().splitlines()
        file.write_text("\n".join([*lines[:-1], f"{NEAR} 1.0 128 {FAR}"]))
    files = sorted((first / "blended_images").glob("????????.jpg"))
    pixels = np.stack([np.array(Image.open(file)) for file in files])
    for name in ("llff", "transforms", "colmap", "blender"):
        write_layout(name, root / name / "scene", pixels)
    opaque(root / "blender")
    centered_dtu(root / "dtu", pixels, f"{NEAR} 1.0 128 {FAR / FAR_MARGIN}")
    return root


@pytest.mark.parametrize("name", ["blendedmvs", "transforms", "colmap", "blender", "dtu"])
def test_every_reader_leads_to_the_same_picture(name, everywhere, tiny_checkpoint):
    model = read_checkpoint(str(tiny_checkpoint)).build_model()
    renderer = Renderer(model, torch.device("cpu"), chunk=8192)

    def rendered(name):
        views = ("--targets", "0", "--sources", *map(str, SOURCES))
        flags = ["--dataset_name", name, "--datadir", str(everywhere / name), *views]
        if name == "llff":
            flags += ["--image_size", "64", "80"]
        if name in ("transforms", "colmap", "blender"):
            flags += ["--near_far", str(NEAR), str(FAR)]
        (task,) = scene_tasks(parse_config(EvaluationConfig, flags).data)
        return renderer(task_sample(task, 0))[0]

    expected, ours = rendered("llff"), rendered(name)
    assert (ours.true_rgb == expected.true_rgb).all()
    torch.testing.assert_close(ours.rgb, expected.rgb, atol=2e-3, rtol=0)
