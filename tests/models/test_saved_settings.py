"""Settings of the run that wrote a checkpoint: those of a whole header, or an error."""

from dataclasses import asdict

import pytest
import torch

from models.checkpoints.baselines import KIND
from models.checkpoints.general import saved_settings
from models.checkpoints.scene_file import SceneHeader
from models.checkpoints.weights import describe_checkpoint
from models.config import ModelConfig
from training.config import FineTuningConfig, SceneRunConfig
from training.finetuning.run import resumed_config
from training.resuming import describe_differences
from training.training_scenes import TrainingScenes
from training.vggt.config import MiniTrainingConfig
from utils.config import settings_from_plain
from utils.errors import UserError

SETTINGS = {"model": {"pyramid": {}}, "backbone": {}, "baselines": {}, "data": {}}
WEIGHTS = {"model.volume.points.inward.weight": torch.zeros(1)}
GENERAL = {"settings": SETTINGS, "backbone_fingerprint": "0"}
BASELINE = {**GENERAL, "model": "point_regression"}


@pytest.mark.parametrize(("kind", "header"), [("vggt_nerf", GENERAL), (KIND, BASELINE)])
def test_settings_of_whole_and_damaged_headers(tmp_path, kind, header):
    path = tmp_path / "last.ckpt"
    assert saved_settings({kind: header, "state_dict": dict(WEIGHTS)}, path) == SETTINGS
    for damaged in (3, "x", None, [], {}, {**header, "settings": 2}):
        with pytest.raises(UserError, match=r"last\.ckpt"):
            saved_settings({kind: damaged, "state_dict": dict(WEIGHTS)}, path)
    with pytest.raises(UserError, match=r"last\.ckpt"):
        saved_settings({"state_dict": {}}, path)


@pytest.mark.parametrize("data", [0.5, {"datadir": "x" * 5000}, {"datadir": "absent"}])
def test_data_that_are_not_here_are_not_a_traceback(tmp_path, data):
    path = tmp_path / "last.ckpt"
    header = {**GENERAL, "settings": {**SETTINGS, "data": data}}
    torch.save({"vggt_nerf": header, "state_dict": WEIGHTS}, path)
    assert "data that are not here" in TrainingScenes.of_general(str(path)).text


def test_settings_beyond_all_numbers_are_one_error():
    with pytest.raises(UserError, match=r"last\.ckpt: .*patch_spread"):
        settings_from_plain(MiniTrainingConfig, {"patch_spread": 1e308}, "last.ckpt")


def test_a_resumed_scene_whose_data_cannot_exist_takes_those_given(tmp_path):
    settings = {**asdict(FineTuningConfig()), "data": {"datadir": "x" * 5000}}
    header = SceneHeader("a", (0, 1), (2,), 2, ModelConfig(), "0", settings)
    path = tmp_path / "latest.tar"
    torch.save({"vggt_nerf_scene": asdict(header), "state": WEIGHTS, "training": {}}, path)
    given = FineTuningConfig(run=SceneRunConfig(ckpt=str(path)))
    assert resumed_config(given).data.datadir == given.data.datadir


def test_long_settings_are_shortened_in_the_message():
    said = describe_differences([("vggt_path", "ckpts", "x" * 5000)])
    assert said.startswith("vggt_path='ckpts' here, 'xxx") and said.endswith("x... there")
    assert len(said) < 300


@pytest.mark.parametrize("content", [{"x" * 5000: 1}, {"baseline": {"model": "x" * 5000}}])
def test_long_names_in_other_files_are_shortened(content):
    assert "xxx..." in describe_checkpoint(content) and len(describe_checkpoint(content)) < 300
