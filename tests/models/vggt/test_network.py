import subprocess
import sys

import pytest
import torch

from models.vggt import VGGT
from models.vggt.aggregator import Aggregator
from models.vggt.attention import grid_rotations, rotate
from models.vggt.config import VGGTConfig
from models.vggt.network import check_images, random_vggt


def test_order_of_the_later_views_does_not_matter(tiny_vggt: VGGT, images: torch.Tensor):
    order = [0, 2, 1]
    with torch.no_grad():
        straight, permuted = tiny_vggt(images), tiny_vggt(images[:, order])
    for name in ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf"):
        expected = getattr(straight, name)[:, order]
        torch.testing.assert_close(getattr(permuted, name), expected, rtol=1e-4, atol=1e-5)


def test_the_first_view_is_special(tiny_vggt: VGGT, images: torch.Tensor):
    with torch.no_grad():
        tiny_vggt.aggregator.camera_token.normal_(generator=torch.Generator().manual_seed(0))
        straight, permuted = tiny_vggt(images), tiny_vggt(images[:, [1, 0, 2]])
    assert not torch.allclose(straight.pose_enc[:, [1, 0, 2]], permuted.pose_enc, atol=1e-4)


def test_scenes_of_a_batch_are_independent(tiny_vggt: VGGT, images: torch.Tensor):
    other = images.flip(-1)
    with torch.no_grad():
        both = tiny_vggt(torch.cat([images, other]))
        alone = tiny_vggt(other)
    torch.testing.assert_close(both.depth[1:], alone.depth, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both.pose_enc[1:], alone.pose_enc, rtol=1e-4, atol=1e-5)


def test_one_pass_feeds_tokens_and_single_heads(tiny_vggt: VGGT, images: torch.Tensor):
    with torch.no_grad():
        layers, patch_start = tiny_vggt.aggregator(images)
        only_depth = tiny_vggt.predict(layers, (28, 42), heads=("depth",))
        everything = tiny_vggt(images)
    assert patch_start == 5
    assert [tuple(layer.shape) for layer in layers] == [(1, 3, 5 + 2 * 3, 32)] * 4
    torch.testing.assert_close(only_depth.depth, everything.depth)
    assert only_depth.pose_enc is None
    assert only_depth.world_points is None
    assert only_depth.pose_encodings == ()


def test_many_views_in_pieces_equal_all_at_once(tiny_vggt: VGGT):
    images = torch.rand(1, 9, 3, 28, 28, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        in_pieces = tiny_vggt(images).depth
    at_once = tiny_vggt(images).depth
    torch.testing.assert_close(in_pieces, at_once, rtol=1e-4, atol=1e-6)


def test_gradients_reach_every_trainable_parameter(tiny_vggt: VGGT, images: torch.Tensor):
    prediction = tiny_vggt.train()(images)
    loss = sum(pose.square().sum() for pose in prediction.pose_encodings)
    loss = loss + prediction.depth.sum() + prediction.depth_conf.sum()
    loss = loss + prediction.world_points.square().sum() + prediction.world_points_conf.sum()
    loss.backward()
    for name, parameter in tiny_vggt.named_parameters():
        assert parameter.requires_grad == ("mask_token" not in name)
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_training_after_inference_mode_and_in_other_sizes(tiny_vggt: VGGT, images: torch.Tensor):
    with torch.inference_mode():
        tiny_vggt(images)
    tiny_vggt(images).depth.sum().backward()
    tiny_vggt(images.transpose(-1, -2)).depth.sum().backward()


def test_autocast_keeps_the_tokens_and_heads_in_float32(tiny_vggt: VGGT, images: torch.Tensor):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layers, _ = tiny_vggt.aggregator(images)
        rough = tiny_vggt(images)
    with torch.no_grad():
        exact = tiny_vggt(images)
    assert all(layer.dtype == torch.float32 for layer in layers)
    assert rough.depth.dtype == torch.float32
    assert 0 < (rough.depth - exact.depth).abs().max() < 0.1


COMPILE = """
import torch
from models.vggt.config import VGGTConfig
from models.vggt.network import random_vggt

config = VGGTConfig(**{config})
vggt = random_vggt(config, seed=0, layer_scale=1.0)
images = torch.rand(1, 3, 3, 28, 42)
compiled = torch.compile(vggt, fullgraph=True, backend="eager")
actual, expected = compiled(images), vggt(images)
torch.testing.assert_close(actual.world_points, expected.world_points)
torch.testing.assert_close(actual.pose_enc, expected.pose_enc)
"""


@pytest.mark.slow
def test_compiles_as_one_graph(tiny_config: VGGTConfig):
    # In a process of its own: the shape checks of the tests cannot be traced.
    script = COMPILE.replace("{config}", repr(vars(tiny_config)))
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


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
def test_refuses_other_images(images: torch.Tensor, message: str):
    with pytest.raises(ValueError, match=message):
        check_images(images, 14)


def test_random_weights_depend_on_the_seed_alone(tiny_config: VGGTConfig):
    torch.manual_seed(1)
    first = random_vggt(tiny_config, seed=3).state_dict()
    state = torch.get_rng_state()
    second = random_vggt(tiny_config, seed=3).state_dict()
    other = random_vggt(tiny_config, seed=4).state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(
        first["aggregator.patch_embed.pos_embed"], other["aggregator.patch_embed.pos_embed"]
    )
    assert first["aggregator.frame_blocks.0.ls1.gamma"].unique().tolist() == pytest.approx([0.01])
    assert first["aggregator.patch_embed.blocks.0.ls1.gamma"].unique().tolist() == [1.0]


def test_meta_device_holds_no_weights_but_real_statistics(tiny_config: VGGTConfig):
    with torch.device("meta"):
        aggregator = Aggregator(tiny_config)
    assert all(parameter.is_meta for parameter in aggregator.parameters())
    assert aggregator.image_mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": 12},
        {"embed_dim": -16},
        {"dino_heads": 3},
        {"img_size": 30},
        {"intermediate_layer_idx": [0, 1, 2, 4]},
        {"intermediate_layer_idx": [0, 2, 1, 3]},
        {"out_channels": [4, 4, 4]},
        {"features": 12},
        {"embed_dim": "16"},
        {"embed_dim": 16.0},
        {"out_channels": "abcd"},
    ],
)
def test_refuses_impossible_configs(tiny_config: VGGTConfig, change: dict):
    with pytest.raises(ValueError, match=next(iter(change))):
        VGGTConfig.from_dict({**vars(tiny_config), **change})


def test_config_ignores_unknown_keys_and_defaults_to_vggt_1b():
    config = VGGTConfig.from_dict(
        {"embed_dim": 1024, "img_size": 518, "patch_size": 14, "enable_track": True}
    )
    assert config == VGGTConfig()


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


def test_rotation_against_complex_numbers(rotations):
    tokens = torch.randn(2, 3, 7, 8, generator=torch.Generator().manual_seed(0))
    rotated = rotate(tokens, rotations)
    for axis in range(2):
        half = slice(4 * axis, 4 * axis + 4)
        before, after = tokens[..., half], rotated[..., half]
        phase = torch.complex(rotations.cos[:, axis], rotations.sin[:, axis])
        expected = torch.complex(before[..., :2], before[..., 2:]) * phase
        torch.testing.assert_close(torch.complex(after[..., :2], after[..., 2:]), expected)
    half = tokens.bfloat16()
    rotated = rotate(half, rotations)
    assert rotated.dtype == torch.float32  # Whatever comes in.
    torch.testing.assert_close(rotated, rotate(half.float(), rotations))


def test_rotated_products_depend_on_relative_positions_alone():
    rotations = grid_rotations((5, 5), 0, 8, torch.device("cpu"))
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(1))
    queries = rotate(query.expand(1, 1, 25, 8), rotations)[0, 0].unflatten(0, (5, 5))
    keys = rotate(key.expand(1, 1, 25, 8), rotations)[0, 0].unflatten(0, (5, 5))
    here = (queries[0, 1] * keys[2, 0]).sum()
    torch.testing.assert_close(here, (queries[2, 4] * keys[4, 3]).sum())
    assert (here - (queries[0, 1] * keys[2, 2]).sum()).abs() > 1e-3
