"""General training on procedural worlds: no data, and the same run wherever it was cut."""

import pytest
import torch

from apps.export_checkpoint import ExportConfig, export_checkpoint
from datasets.procedural.config import ProceduralDataConfig, ReplayConfig
from datasets.procedural.data_module import ProceduralDataModule
from datasets.procedural.mixed_data import MixedDataModule
from datasets.procedural.replay import StepPlans
from training.config import AugmentationConfig, GeneralTrainingConfig
from training.general import run_general_training
from training.training_scenes import TrainingScenes
from utils.checkpoints import load_safely
from utils.config import parse_config

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


@pytest.fixture
def mixed(tiny_dtu):
    """Return the flags of worlds with a scene on disk, which has two of five batches."""
    return ("--mix", "procedural,weight=3", f"dtu:{tiny_dtu},weight=2")


def train(tiny_flags, folder, *extra):
    flags = [text for name, value in WORLDS.items() for text in (f"--{name}", *str(value).split())]
    config = parse_config(
        GeneralTrainingConfig, [*tiny_flags, *flags, "--save_dir", str(folder), *extra]
    )
    return run_general_training(config) / "last.ckpt"


@pytest.mark.parametrize("kind", ["worlds", "joint", "mixed"])
def test_trains_and_resumes_to_the_same_bits(tiny_flags, mixed, tmp_path, monkeypatch, kind):
    joint = {"worlds": (), "joint": JOINT, "mixed": mixed}[kind]
    whole = train(tiny_flags, tmp_path / "whole", *joint)
    pictures = sorted(path.name for path in (whole.parent.parent / "pictures").iterdir())
    names = [f"step={step:07d}_world{world}_view000.png" for step in (4, 8) for world in (0, 1)]
    assert set(names) <= set(pictures) and (len(pictures) > 4) == (kind == "mixed")
    prepare = ProceduralDataModule.on_after_batch_transfer

    def crash(module, batch, dataloader_idx):
        if isinstance(batch, StepPlans) and batch.step == (4 if kind == "mixed" else 7):
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
    trained = zip(expected["average"]["trained"], actual["average"]["trained"], strict=True)
    assert all(torch.equal(*pair) for pair in trained)
    if kind == "mixed":
        assert "scan1" in TrainingScenes.of_general(str(resumed))
        exported = export_checkpoint(ExportConfig(str(resumed), str(tmp_path / "exported")))
        settings = load_safely(exported)["vggt_nerf"]["settings"]
        folder = f"dtu:{mixed[2].rpartition('/')[2]}"
        assert settings["data"]["mix"] == ("procedural,weight=3", folder)
        assert "alone" not in TrainingScenes.of_general(str(exported)).text


def test_camera_noise_without_worlds_is_refused():
    with pytest.raises(ValueError, match="give --camera_noise 0"):
        GeneralTrainingConfig(augmentation=AugmentationConfig(camera_noise=0.1))


def test_mixed_steps_are_spread_evenly(mixed):
    data = parse_config(GeneralTrainingConfig, [*mixed]).data
    worlds, replay = ProceduralDataConfig(world_views=8), ReplayConfig()
    module = MixedDataModule(data, worlds, replay)
    kinds = [module._disk_steps(step + 1) - module._disk_steps(step) for step in range(10)]
    assert kinds == [0, 0, 1, 0, 1, 0, 0, 1, 0, 1]
