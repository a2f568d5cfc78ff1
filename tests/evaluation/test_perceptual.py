"""LPIPS, with random weights in the place of the real ones."""

import logging
import shutil

import pytest
import torch
from torchvision.models.vgg import cfgs, make_layers

from evaluation.scores import VGG_FILE, PerceptualDistance, find_perceptual_distance
from utils.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = make_layers(cfgs["D"]).state_dict()
    path = tmp_path_factory.mktemp("vgg") / VGG_FILE
    torch.save({f"features.{name}": value for name, value in features.items()}, path)
    return path


def test_the_weights_of_the_file_are_used(weights, tmp_path):
    distance = PerceptualDistance(weights)
    loaded = distance._metric.net.state_dict()["slice5.28.weight"]
    saved = torch.load(weights, weights_only=True)["features.28.weight"]
    torch.testing.assert_close(loaded, saved)
    image = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    near, far = 0.9 * image + 0.05, 1 - image
    assert distance(image, image) == 0.0
    assert 0 < distance(near.double(), image.double()) < distance(far, image)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="not the weights of torchvision's VGG-16"):
        PerceptualDistance(tmp_path / "x.pth")


def test_as_a_loss_it_has_gradients_and_agrees_with_the_metric(weights):
    loss = find_perceptual_distance(str(weights))
    ours, theirs = torch.rand(2, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    values = loss(ours.requires_grad_(), theirs)
    metric = PerceptualDistance(weights, "cpu")
    expected = [metric(*pair) for pair in zip(ours.split(1), theirs.split(1), strict=True)]
    torch.testing.assert_close(values, torch.cat(expected))
    values.sum().backward()
    assert ours.grad.isfinite().all() and ours.grad.abs().sum() > 0


def test_found_where_pytorch_keeps_them_else_a_note(weights, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with caplog.at_level(logging.INFO):
        assert find_perceptual_distance() is None
    assert "LPIPS is left out" in caplog.text and VGG_FILE in caplog.text
    (tmp_path / "checkpoints").mkdir()
    cached = shutil.copy(weights, tmp_path / "checkpoints")
    assert str(find_perceptual_distance().weights) == cached
    assert find_perceptual_distance(str(weights)).weights == weights
    with pytest.raises(UserError, match="no such file"):
        find_perceptual_distance(str(tmp_path / "absent"))
