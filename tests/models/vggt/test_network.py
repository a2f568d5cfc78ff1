import pytest
import torch

from models.vggt.aggregator import Aggregator
from models.vggt.attention import grid_rotations, rotate
from models.vggt.config import VGGTConfig
from models.vggt.network import check_images, random_vggt


def assert_close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_order_of_the_views_matters_for_the_first_alone(tiny_vggt, images):
    straight, permuted = tiny_vggt(images), tiny_vggt(images[:, [0, 2, 1]])
    for name in ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf"):
        assert_close(getattr(permuted, name), getattr(straight, name)[:, [0, 2, 1]])
    tiny_vggt.aggregator.camera_token.normal_(generator=torch.Generator().manual_seed(0))
    straight, permuted = tiny_vggt(images), tiny_vggt(images[:, [1, 0, 2]])
    assert not torch.allclose(straight.pose_enc[:, [1, 0, 2]], permuted.pose_enc, atol=1e-4)


@torch.no_grad()
def test_scenes_of_a_batch_are_independent(tiny_vggt, images):
    both, alone = tiny_vggt(torch.cat([images, images.flip(-1)])), tiny_vggt(images.flip(-1))
    assert_close(both.depth[1:], alone.depth)
    assert_close(both.pose_enc[1:], alone.pose_enc)


@torch.no_grad()
def test_one_pass_feeds_tokens_and_single_heads(tiny_vggt, images):
    layers, patch_start = tiny_vggt.aggregator(images)
    only_depth = tiny_vggt.predict(layers, (28, 42), heads=("depth",))
    assert patch_start == 5
    assert [tuple(layer.shape) for layer in layers] == [(1, 3, 5 + 2 * 3, 32)] * 4
    torch.testing.assert_close(only_depth.depth, tiny_vggt(images).depth)
    assert (only_depth.pose_enc, only_depth.world_points) == (None, None)
    assert only_depth.pose_encodings == ()


def test_many_views_in_pieces_equal_all_at_once(tiny_vggt):
    images = torch.rand(1, 9, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        in_pieces = tiny_vggt(images).depth
    assert_close(in_pieces, tiny_vggt(images).depth)


def test_gradients_reach_every_trainable_parameter(tiny_vggt, images):
    prediction = tiny_vggt.train()(images)
    loss = sum(pose.square().sum() for pose in prediction.pose_encodings)
    loss = loss + prediction.depth.sum() + prediction.depth_conf.sum()
    loss = loss + prediction.world_points.square().sum() + prediction.world_points_conf.sum()
    loss.backward()
    for name, parameter in tiny_vggt.named_parameters():
        assert parameter.requires_grad == ("mask_token" not in name)
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_training_after_inference_mode_and_in_other_sizes(tiny_vggt, images):
    with torch.inference_mode():
        tiny_vggt(images)
    tiny_vggt(images).depth.sum().backward()
    tiny_vggt(images.transpose(-1, -2)).depth.sum().backward()


@torch.no_grad()
def test_autocast_keeps_the_tokens_and_heads_in_float32(tiny_vggt, images):
    exact = tiny_vggt(images)
    with torch.autocast("cpu", torch.bfloat16):
        layers, _ = tiny_vggt.aggregator(images)
        rough = tiny_vggt(images)
    assert all(layer.dtype == torch.float32 for layer in (*layers, rough.depth))
    assert 0 < (rough.depth - exact.depth).abs().max() < 0.1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 3, 28, 28), r"\(2, 3, 28, 28\)"),
        (torch.rand(1, 2, 4, 28, 28), r"batch, view, 3"),
        (torch.zeros(1, 2, 3, 28, 28, dtype=torch.uint8), "uint8"),
        (torch.rand(1, 2, 3, 30, 28), "height 30"),
        (torch.rand(1, 2, 3, 28, 0), "width 0"),
        (torch.rand(1, 0, 3, 28, 28), "positive"),
        (255 * torch.ones(1, 2, 3, 28, 28), "255"),
        (torch.full((1, 2, 3, 28, 28), torch.nan), "nan"),
    ],
)
def test_refuses_other_images(images, message):
    with pytest.raises(ValueError, match=message):
        check_images(images, 14)


def test_random_weights_depend_on_the_seed_alone(tiny_config):
    torch.manual_seed(1)
    first = random_vggt(tiny_config, seed=3).state_dict()
    state = torch.get_rng_state()
    second = random_vggt(tiny_config, seed=3).state_dict()
    other = random_vggt(tiny_config, seed=4).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    name = "aggregator.patch_embed.pos_embed"
    assert not torch.equal(first[name], other[name])
    assert first["aggregator.frame_blocks.0.ls1.gamma"].unique().tolist() == pytest.approx([0.01])
    assert first["aggregator.patch_embed.blocks.0.ls1.gamma"].unique().tolist() == [1.0]


def test_meta_device_holds_no_weights_but_real_statistics(tiny_config):
    with torch.device("meta"):
        aggregator = Aggregator(tiny_config)
    assert all(parameter.is_meta for parameter in aggregator.parameters())
    assert aggregator.image_mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embed_dim", 12),
        ("embed_dim", -16),
        ("dino_heads", 3),
        ("img_size", 30),
        ("intermediate_layer_idx", [0, 1, 2, 4]),
        ("intermediate_layer_idx", [0, 2, 1, 3]),
        ("out_channels", [4, 4, 4]),
        ("features", 12),
        ("embed_dim", "16"),
        ("embed_dim", 16.0),
        ("out_channels", "abcd"),
    ],
)
def test_refuses_impossible_configs(tiny_config, name, value):
    with pytest.raises(ValueError, match=name):
        VGGTConfig.from_dict({**vars(tiny_config), name: value})


def test_config_ignores_unknown_keys_and_defaults_to_vggt_1b():
    values = {"embed_dim": 1024, "img_size": 518, "patch_size": 14, "enable_track": True}
    assert VGGTConfig.from_dict(values) == VGGTConfig()


@pytest.fixture
def rotations():
    """One special token, then the patches from (1, 1) to (2, 3); frequencies 1 and 1/10."""
    return grid_rotations((2, 3), 1, 8, torch.device("cpu"))


def test_rotary_positions_by_hand(rotations):
    positions = torch.tensor([[0, 0], [1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]])
    angles = positions[..., None] * torch.tensor([1.0, 0.1])
    torch.testing.assert_close(rotations.cos, angles.cos())
    torch.testing.assert_close(rotations.sin, angles.sin())
    assert torch.equal(rotations.repeat(3).cos, torch.cat([rotations.cos] * 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_against_complex_numbers(rotations, dtype):
    tokens = torch.randn(2, 3, 7, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    rotated = rotate(tokens, rotations)
    for axis in range(2):
        half = slice(4 * axis, 4 * axis + 4)
        before, after = tokens[..., half].float(), rotated[..., half]
        phase = torch.complex(rotations.cos[:, axis], rotations.sin[:, axis])
        expected = torch.complex(before[..., :2], before[..., 2:]) * phase
        torch.testing.assert_close(torch.complex(after[..., :2], after[..., 2:]), expected)


def test_rotated_products_depend_on_relative_positions_alone():
    rotations = grid_rotations((5, 5), 0, 8, torch.device("cpu"))
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(1))
    queries = rotate(query.expand(1, 1, 25, 8), rotations)[0, 0].unflatten(0, (5, 5))
    keys = rotate(key.expand(1, 1, 25, 8), rotations)[0, 0].unflatten(0, (5, 5))
    here = (queries[0, 1] * keys[2, 0]).sum()
    torch.testing.assert_close(here, (queries[2, 4] * keys[4, 3]).sum())
    assert (here - (queries[0, 1] * keys[2, 2]).sum()).abs() > 1e-3
