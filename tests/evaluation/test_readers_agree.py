"""The same scene through different readers: the same tasks and the same pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.formats.dtu import FAR_MARGIN
from datasets.protocols import scene_tasks
from evaluation.config import EvaluationConfig
from evaluation.rendering import Renderer, task_sample
from evaluation.scores import describe_region
from models.checkpoints.general import read_checkpoint
from utils.config import parse_config

NEAR, FAR = 240.0, 1080.0
"""LLFF's margins about the bounds of the scene that the tests write."""
RANGE, SIZE = ("--near_far", str(NEAR), str(FAR)), ("--image_size", "64", "80")
CHOSEN = ("--targets", "0", "--sources", "1", "2", "3", "4")
FLAGS = {"llff": SIZE, "transforms": RANGE, "colmap": RANGE, "blender": RANGE}


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
    for name in FLAGS:
        write_layout(name, root / name / "scene", pixels)
    for file in (root / "blender").rglob("r_*.png"):
        Image.fromarray(np.array(Image.open(file))[..., :3]).save(file)
    centered_dtu(root / "dtu", pixels, f"{NEAR} 1.0 128 {FAR / FAR_MARGIN}")
    return root


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        *(("transforms", ()), ("colmap", ())),
        # The others have views or units of their own.
        *((name, CHOSEN) for name in ("blendedmvs", "blender", "dtu")),
    ],
)
def test_every_reader_leads_to_the_same_task_and_picture(name, chosen, everywhere, tiny_checkpoint):
    model = read_checkpoint(str(tiny_checkpoint)).build_model()

    def rendered(name):
        flags = ["--dataset_name", name, "--datadir", str(everywhere / name), *FLAGS.get(name, ())]
        (task,) = scene_tasks(parse_config(EvaluationConfig, [*flags, *chosen]).data)
        assert task.targets == (0,)
        sample = task_sample(task, 0)
        picture = Renderer(model, torch.device("cpu"), chunk=8192)(sample)[0]
        return sample, picture, describe_region(picture, task.region)

    (expected, theirs, their_region), (sample, ours, our_region) = rendered("llff"), rendered(name)
    assert sample.source_ids == expected.source_ids
    if not chosen:
        assert our_region == their_region
        torch.testing.assert_close(sample.near_far, expected.near_far)
    assert (sample.sources.images == expected.sources.images).all()
    assert (ours.true_rgb == theirs.true_rgb).all()
    torch.testing.assert_close(ours.rgb, theirs.rgb, atol=2e-3, rtol=0)
