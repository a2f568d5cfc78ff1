"""VGGT-Omega as the backbone of a training: fixed, and trained with the radiance field."""

import json
from dataclasses import asdict

import pytest
import torch
from tiny_models import TINY_OMEGA

import train_vggt_mini_pl
from apps.export_checkpoint import ExportConfig, export_checkpoint
from models.checkpoints.general import read_checkpoint
from models.vggt.backbone import load_backbone
from models.vggt.network import random_vggt
from training.config import GeneralTrainingConfig
from training.general import run_general_training
from utils.config import parse_config
from utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def omega_flags(tiny_flags, tmp_path_factory):
    folder = tmp_path_factory.mktemp("omega")
    (folder / "config.json").write_text(json.dumps(asdict(TINY_OMEGA)))
    flags = {"vggt_path": folder, "backbone_size": 48, "batches_per_epoch": 2, "num_epochs": 1}
    return [*tiny_flags, *(text for name, value in flags.items() for text in (f"--{name}", value))]


@pytest.fixture
def train(omega_flags, tmp_path):
    def run(**flags):
        given = (text for name, value in flags.items() for text in (f"--{name}", str(value)))
        argv = [*map(str, omega_flags), "--save_dir", str(tmp_path), *given]
        return run_general_training(parse_config(GeneralTrainingConfig, argv)) / "last.ckpt"

    return run


def test_trains_on_it_and_refuses_another_backbone(train, tiny_backbone):
    checkpoint = read_checkpoint(str(train()))
    network = checkpoint.build_model().backbone.network
    assert network.config == TINY_OMEGA
    with pytest.raises(UserError, match=r"trained on another backbone .* --vggt_path"):
        checkpoint.with_overrides(vggt_path=str(tiny_backbone)).build_model()


def test_is_trained_with_the_field_and_exported(train, tmp_path, make_views):
    worlds = {"world_heights": 32, "world_widths": 48, "world_views": 5, "world_rays": 1}
    joint = {"backbone_lrate": 1, "geometry_weight": 0.05, "val_worlds": 1}
    path = train(dataset_name="procedural", **worlds, **joint)
    checkpoint = read_checkpoint(str(path))
    before = load_backbone(checkpoint.backbone_config).network.state_dict()
    learned = checkpoint.network_weights
    same = {name for name, value in learned.items() if torch.equal(value, before[name])}
    constants = {name for name in before if name.endswith(("periods", "bias_mask"))}
    assert same == constants | {"aggregator.patch_embed.mask_token"}
    exported = export_checkpoint(ExportConfig(str(path), str(tmp_path / "shipped")))
    images = make_views(1, 2).images
    theirs, ours = (read_checkpoint(str(p)).build_model().backbone for p in (path, exported))
    assert ours.network.config == TINY_OMEGA
    expected = theirs(images).depth
    torch.testing.assert_close(ours(images).depth, expected, rtol=0.02, atol=1e-3)


def test_a_size_that_is_no_multiple_of_its_patch(train):
    with pytest.raises(UserError, match=r"backbone_size=518 .* patch 16, for example 512 or 528"):
        train(backbone_size=518)


def test_the_small_backbone_s_training_refuses_it(tmp_path, caplog):
    random_vggt(TINY_OMEGA, seed=0).save_pretrained(tmp_path)
    usual = ["--device", "cpu", "--save_dir", str(tmp_path / "runs")]
    for flag, said in (("init_weights", "the settings say"), ("evaluate", "of patch_size=16")):
        assert train_vggt_mini_pl.main([f"--{flag}", str(tmp_path), *usual]) == 2
        assert said in caplog.text
