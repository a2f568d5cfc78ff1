"""General training on several data sets at once, from the command line on."""

import pytest
import torch

from training.config import GeneralTrainingConfig
from training.general import run_general_training
from utils.config import parse_config

pytestmark = pytest.mark.filterwarnings("default")


def test_a_mixture_trains_and_resumes(tiny_flags, tiny_dtu, write_layout, tmp_path):
    write_layout("colmap", tmp_path / "colmap" / "scene")
    write_layout("transforms", tmp_path / "transforms")
    mix = [
        *("--mix", f"dtu:{tiny_dtu},weight=2", f"colmap:{tmp_path / 'colmap'}"),
        f"transforms:{tmp_path / 'transforms'},height=48,width=60",
    ]
    flags = [*tiny_flags, *mix, "--batches_per_epoch", "5", "--save_dir", str(tmp_path / "runs")]
    folder = run_general_training(
        parse_config(GeneralTrainingConfig, [*flags, "--num_epochs", "1"])
    )
    ckpt = folder / "last.ckpt"
    first = torch.load(ckpt, weights_only=True)
    assert first["global_step"] == 5
    resumed = [*flags, "--num_epochs", "2", "--ckpt", str(ckpt)]
    run_general_training(parse_config(GeneralTrainingConfig, resumed))
    assert torch.load(ckpt, weights_only=True)["global_step"] == 10
