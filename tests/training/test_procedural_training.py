"""General training on procedural worlds: no data, and the same run wherever it was cut."""

import pytest
import torch

from datasets.procedural_data import ProceduralDataModule
from datasets.replay import StepPlans
from training.config import GeneralTrainingConfig
from training.general import run_general_training
from utils.config import parse_config
from utils.files import load_safely

pytestmark = pytest.mark.filterwarnings("default")

WORLDS = {
    "dataset_name": "procedural",
    "world_heights": "28 20",
    "world_widths": "36 40",
    "world_views": 5,
    "world_rays": 1,
    "val_worlds": 2,
    "scenes_per_batch": 2,
    "visits": 2,
    "replay_batches": 2,
    "batches_per_epoch": 4,
    "num_epochs": 2,
    "save_every": 3,
}

JOINT = ("--geometry_weight", "0.02", "--backbone_lrate", "1")
"""The backbone learns, too."""


def train(tiny_flags, folder, *extra):
    flags = [text for name, value in WORLDS.items() for text in (f"--{name}", *str(value).split())]
    config = parse_config(
        GeneralTrainingConfig, [*tiny_flags, *flags, "--save_dir", str(folder), *extra]
    )
    return run_general_training(config) / "last.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("joint", [(), JOINT])
def test_trains_and_resumes_to_the_same_bits(tiny_flags, tmp_path, monkeypatch, joint):
    whole = train(tiny_flags, tmp_path / "whole", *joint)
    pictures = sorted(path.name for path in (whole.parent.parent / "pictures").iterdir())
    assert pictures == [
        f"step={step:07d}_world{world}_view000.png" for step in (4, 8) for world in (0, 1)
    ]
    prepare = ProceduralDataModule.on_after_batch_transfer

    def crash(module, batch, dataloader_idx):
        if isinstance(batch, StepPlans) and batch.step == 7:
            raise RuntimeError("crash")
        return prepare(module, batch, dataloader_idx)

    with monkeypatch.context() as crashing, pytest.raises(RuntimeError, match="crash"):
        crashing.setattr(ProceduralDataModule, "on_after_batch_transfer", crash)
        train(tiny_flags, tmp_path / "parts", *joint)
    cut = tmp_path / "parts" / whole.parent.parent.name / "ckpts" / "last.ckpt"
    assert load_safely(cut)["global_step"] == 6
    resumed = train(tiny_flags, tmp_path / "parts", "--ckpt", str(cut), *joint)
    expected, actual = load_safely(whole), load_safely(resumed)
    assert actual["global_step"] == expected["global_step"] == 8
    for key, value in expected["state_dict"].items():
        assert torch.equal(actual["state_dict"][key], value), key
