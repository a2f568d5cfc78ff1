"""Settings of the run that wrote a checkpoint: those of a whole header, or an error."""

import pytest
import torch

from models.checkpoints.baselines import KIND
from models.checkpoints.general import saved_settings
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


def test_data_settings_that_are_none_are_not_a_traceback(tmp_path):
    path = tmp_path / "last.ckpt"
    header = {**GENERAL, "settings": {**SETTINGS, "data": 0.5}}
    torch.save({"vggt_nerf": header, "state_dict": WEIGHTS}, path)
    assert "data that are not here" in TrainingScenes.of_general(str(path)).text


def test_settings_beyond_all_numbers_are_one_error():
    with pytest.raises(UserError, match=r"last\.ckpt: .*patch_spread"):
        settings_from_plain(MiniTrainingConfig, {"patch_spread": 1e308}, "last.ckpt")
