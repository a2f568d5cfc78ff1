"""A model comes back from its checkpoint alone, or one line says why not."""

from dataclasses import asdict

import pytest
import torch

from models.checkpoint import read_checkpoint
from models.config import BackboneConfig, ModelConfig
from utils.config import settings_from_plain
from utils.errors import UserError
from utils.files import load_safely, save_atomically


def rewritten(path, folder, change):
    content = load_safely(path)
    change(content)
    save_atomically(content, folder / "changed.ckpt")
    return str(folder / "changed.ckpt")


def test_model_is_the_one_that_was_saved(tiny_checkpoint, tiny_model, make_views):
    checkpoint = read_checkpoint(str(tiny_checkpoint))
    model = checkpoint.build_model()
    assert checkpoint.step == 7 and model.config == tiny_model.config and not model.training
    weights = model.state_dict()
    assert weights.keys() == tiny_model.state_dict().keys()
    for name, value in tiny_model.state_dict().items():
        assert torch.equal(weights[name], value)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    views = make_views(1, 3)
    with torch.no_grad():
        near_far = torch.tensor([[2.0, 6.0]])
        ours, theirs = (m.encode(views, near_far) for m in (model, tiny_model))
        torch.testing.assert_close(asdict(ours), asdict(theirs), rtol=0, atol=0)


def test_newest_checkpoint_of_a_folder(tiny_checkpoint):
    assert read_checkpoint(str(tiny_checkpoint.parent)).path == tiny_checkpoint


def test_sampling_can_be_chosen_and_nothing_else_changes(tiny_checkpoint):
    checkpoint = read_checkpoint(str(tiny_checkpoint))
    same = checkpoint.with_overrides(None, N_samples=None)
    assert same.model_config == checkpoint.model_config
    fewer = checkpoint.with_overrides(None, N_samples=5).build_model()
    assert fewer.config.rendering.N_samples == 5
    assert fewer.config.rendering.N_planes == checkpoint.model_config.rendering.N_planes
    with pytest.raises(UserError, match="N_samples"):
        checkpoint.with_overrides(None, N_samples=-1)


def test_configs_survive_the_way_through_plain_data():
    for config in (ModelConfig(), BackboneConfig()):
        assert settings_from_plain(type(config), asdict(config), "x") == config


def test_settings_that_are_younger_than_the_checkpoint_take_their_defaults():
    older = asdict(ModelConfig())
    del older["rendering"]["pad"]
    assert settings_from_plain(ModelConfig, older, "x") == ModelConfig()


def test_settings_of_another_version_are_refused(tiny_checkpoint, tmp_path):
    def change(content):
        content["vggt_nerf"]["settings"]["model"]["rendering"]["wormholes"] = 3

    with pytest.raises(UserError, match="model.rendering.wormholes: this version"):
        read_checkpoint(rewritten(tiny_checkpoint, tmp_path, change))


def test_another_backbone_is_refused(tiny_checkpoint, tmp_path):
    def change(content):
        content["vggt_nerf"]["backbone_fingerprint"] = "0123"

    with pytest.raises(UserError, match="another backbone .*0123.*--vggt_path"):
        read_checkpoint(rewritten(tiny_checkpoint, tmp_path, change)).build_model()


def test_backbone_at_another_place(tiny_checkpoint, tmp_path):
    moved = read_checkpoint(str(tiny_checkpoint)).with_overrides(str(tmp_path / "absent"))
    with pytest.raises(UserError, match="absent"):
        moved.build_model()


def test_weights_that_do_not_fit(tiny_checkpoint, tmp_path):
    def change(content):
        content["state_dict"].popitem()

    with pytest.raises(UserError, match="do not fit"):
        read_checkpoint(rewritten(tiny_checkpoint, tmp_path, change)).build_model()


@pytest.mark.parametrize("content", [{}, {"vggt_nerf": 3, "state_dict": {}}, {"state_dict": {}}])
def test_other_kinds_of_file(tmp_path, content):
    save_atomically(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of general training"):
        read_checkpoint(str(tmp_path / "other.ckpt"))
