"""The backbone trained together with the radiance field."""

import pytest
import torch

from apps.export_checkpoint import ExportConfig, export_checkpoint
from models.checkpoints.general import read_checkpoint
from models.vggt.backbone import FrozenVGGT, load_backbone
from training.config import GeneralTrainingConfig
from training.general import run_general_training
from utils.config import parse_config
from utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")

FLAGS = {
    "dataset_name": "procedural",
    "world_heights": "28",
    "world_widths": "36",
    "world_views": 5,
    "world_rays": 1,
    "val_worlds": 1,
    "batches_per_epoch": 4,
    "num_epochs": 1,
    "backbone_lrate": 1,
    "geometry_weight": 0.05,
    "precision": "bf16-mixed",
}


@pytest.fixture(scope="module")
def joint(tiny_flags, tmp_path_factory):
    flags = [text for name, value in FLAGS.items() for text in (f"--{name}", str(value))]
    folder = str(tmp_path_factory.mktemp("joint"))
    config = parse_config(GeneralTrainingConfig, [*tiny_flags, *flags, "--save_dir", folder])
    return run_general_training(config) / "last.ckpt"


def test_what_the_backbone_learned_is_in_the_checkpoint(joint):
    checkpoint = read_checkpoint(str(joint))
    model, network = checkpoint.build_model(), checkpoint.network_weights
    assert isinstance(model.backbone, FrozenVGGT) and not model.backbone.learns
    before = load_backbone(checkpoint.backbone_config).network.state_dict()
    same = {name for name, value in network.items() if torch.equal(value, before[name])}
    assert same == {"aggregator.patch_embed.mask_token"}  # It stands for patches that none lacks.
    for name, value in model.backbone.network.state_dict().items():
        assert torch.equal(value, network[name])
    assert model.backbone.fingerprint != checkpoint.backbone_fingerprint


def test_an_export_has_the_backbone_beside_it(joint, tmp_path, make_views):
    exported = export_checkpoint(ExportConfig(str(joint), str(tmp_path / "shipped")))
    ours, theirs = read_checkpoint(str(exported)), read_checkpoint(str(joint))
    assert ours.backbone_config.vggt_path == str(tmp_path / "shipped" / "backbone")
    assert not ours.network_weights
    images = make_views(1, 2).images
    before, after = theirs.build_model().backbone(images), ours.build_model().backbone(images)
    torch.testing.assert_close(after.depth, before.depth, rtol=0.02, atol=1e-3)


def test_another_run_cannot_start_from_weights_without_their_backbone(joint, tiny_flags, tmp_path):
    flags = [*tiny_flags, "--save_dir", str(tmp_path), "--init_ckpt", str(joint)]
    with pytest.raises(UserError, match=r"apps.export_checkpoint .*--vggt_path FOLDER/backbone"):
        run_general_training(parse_config(GeneralTrainingConfig, flags))
