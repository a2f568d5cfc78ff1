"""The backbone as the model holds it: frozen, resized to, tuned by low-rank additions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import SMALLEST_VGGT, TINY_OMEGA
from torch import nn

from models.vggt.backbone import FrozenVGGT, fingerprint, network_size, resize_images
from models.vggt.network import random_vggt
from utils.errors import UserError


class Parent(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.layer = nn.Linear(2, 2)


@pytest.fixture
def parent(tiny_vggt):
    return Parent(FrozenVGGT(tiny_vggt))


def test_parent_neither_trains_nor_saves_it_and_moves_it(parent):
    assert {name for name, _ in parent.named_parameters()} == {"layer.weight", "layer.bias"}
    assert set(parent.state_dict()) == {"layer.weight", "layer.bias"}
    parent.load_state_dict(parent.state_dict(), strict=True)
    parent.train().requires_grad_(True)
    network = parent.backbone.network
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    parent.to("meta")
    assert all(parameter.is_meta for parameter in parent.backbone.network.parameters())


def test_no_graph_and_usable_in_one(parent):
    images = torch.rand(1, 2, 3, 30, 41, requires_grad=True)
    features = parent.backbone(images)
    assert not any(tokens.requires_grad for tokens in features.tokens)
    weight = torch.ones((), requires_grad=True)
    (weight * features.tokens[0]).sum().backward()
    assert weight.grad is not None
    assert images.grad is None


@pytest.mark.parametrize(("height", "width", "grid"), [(30, 41, (1, 2)), (50, 20, (2, 1))])
def test_any_image_size(tiny_vggt, height, width, grid):
    backbone = FrozenVGGT(tiny_vggt)
    images = torch.rand(2, 3, 3, height, width, generator=torch.Generator().manual_seed(0))
    features = backbone(images, heads=("depth", "camera"))
    size = (14 * grid[0], 14 * grid[1])
    assert features.network_size == size
    assert [tuple(tokens.shape) for tokens in features.tokens] == [(2, 3, 32, *grid)] * 4
    expected = tiny_vggt(resize_images(images, size))
    torch.testing.assert_close(features.depth, expected.depth.squeeze(-1))
    torch.testing.assert_close(features.depth_conf, expected.depth_conf)
    torch.testing.assert_close(features.pose_enc, expected.pose_enc)
    layers, start = tiny_vggt.aggregator(resize_images(images, size))
    torch.testing.assert_close(features.tokens[2][:, :, :, 0, 0], layers[2][:, :, start])
    last_patch = features.tokens[2][:, :, :, grid[0] - 1, grid[1] - 1]
    torch.testing.assert_close(last_patch, layers[2][:, :, -1])


def test_heads_can_be_left_out(tiny_vggt):
    features = FrozenVGGT(tiny_vggt, long_side=42)(torch.rand(1, 1, 3, 20, 30), heads=())
    assert features.network_size == (28, 42)
    assert (features.depth, features.depth_conf, features.pose_enc) == (None, None, None)


def test_resizing_keeps_the_range_and_flat_colours():
    checker = (torch.arange(50)[:, None] // 7 + torch.arange(60) // 7) % 2
    resized = resize_images(checker.float().expand(1, 1, 3, 50, 60), (28, 42))
    assert resized.min() >= 0
    assert resized.max() <= 1
    flat = resize_images(torch.full((1, 1, 3, 50, 60), 0.25), (28, 42))
    torch.testing.assert_close(flat, torch.full((1, 1, 3, 28, 42), 0.25))


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([28, 280, 518]))
def test_network_size(height, width, long_side):
    new_height, new_width = network_size(height, width, long_side, 14)
    assert max(new_height, new_width) == long_side
    assert min(new_height, new_width) >= 14
    assert new_height % 14 == new_width % 14 == 0
    exact = min(height, width) * long_side / max(height, width)
    assert abs(min(new_height, new_width) - max(exact, 14)) <= 7 + 1e-9


def test_network_size_of_common_pictures():
    assert network_size(512, 640, 518, 14) == (420, 518)
    assert network_size(640, 512, 518, 14) == (518, 420)
    assert network_size(224, 280, 280, 14) == (224, 280)
    with pytest.raises(ValueError, match="backbone_size=500 .* for example 490 or 504"):
        network_size(512, 640, 500, 14)


def test_fingerprint_tells_weights_and_shapes_apart(tiny_config):
    first = fingerprint(random_vggt(tiny_config, seed=0))
    assert first == FrozenVGGT(random_vggt(tiny_config, seed=0)).fingerprint
    assert first != fingerprint(random_vggt(tiny_config, seed=1))
    assert fingerprint(nn.Linear(2, 3)) != fingerprint(nn.Linear(3, 2))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("config", [SMALLEST_VGGT, TINY_OMEGA])
def test_on_a_gpu_in_half_precision_without_stalls(config):
    images = torch.rand(1, 3, 3, 30, 41, generator=torch.Generator().manual_seed(0))
    backbone = FrozenVGGT(random_vggt(config, seed=0, layer_scale=1.0))
    expected = backbone(images, heads=("depth", "camera"))
    parent = Parent(backbone).cuda()
    on_gpu = images.cuda()
    parent.backbone(on_gpu, heads=("depth", "camera"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        features = parent.backbone(on_gpu, heads=("depth", "camera"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(tokens.dtype == torch.float32 for tokens in features.tokens)
    torch.testing.assert_close(features.depth.cpu(), expected.depth, rtol=0.05, atol=0.05)
    torch.testing.assert_close(features.pose_enc.cpu(), expected.pose_enc, rtol=0.05, atol=0.05)


def test_additions_change_nothing_until_trained(tiny_vggt, images):
    before = FrozenVGGT(tiny_vggt, 42)(images, heads=()).tokens
    tuned = FrozenVGGT(tiny_vggt, 42, tuned_blocks=1)
    after = tuned(images, heads=()).tokens
    torch.testing.assert_close(after, before)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.fill_(0.1)
    after = tuned(images, heads=()).tokens
    torch.testing.assert_close(after[0], before[0])  # Only the last blocks are tuned.
    assert not torch.allclose(after[-1], before[-1])


def test_gradients_reach_additions_and_not_the_network(tiny_vggt, images):
    tuned = FrozenVGGT(tiny_vggt, 42, tuned_blocks=2, tuned_rank=4)
    features = tuned(images)
    features.tokens[-1].square().sum().backward()
    additions = dict(tuned.named_parameters())
    assert set(tuned.state_dict()) == set(additions)
    assert all(name.startswith("tuning.") for name in additions)
    assert all(p.grad is not None for n, p in additions.items() if ".up." in n)
    assert any(p.grad.abs().sum() > 0 for p in additions.values() if p.grad is not None)
    assert all(p.grad is None for p in tiny_vggt.parameters())
    assert not features.depth.requires_grad


def test_more_tuned_blocks_than_there_are(tiny_vggt):
    with pytest.raises(UserError, match="tuned_blocks=99"):
        FrozenVGGT(tiny_vggt, 28, tuned_blocks=99)
