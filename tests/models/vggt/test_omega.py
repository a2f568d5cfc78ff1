"""VGGT-Omega: ours equals the published network; its files; as a backbone.

How vggt_omega_reference.npz was made: the public modules (facebookresearch/vggt-omega, September
2026: aggregator, vision_transformer, attention, block, dense_head; camera_head and the small layers
as copies of that repository have them) were transcribed with their sizes as arguments and without
what inference does not use, filled by ``drawn`` and run in float32 on a CPU. It holds the layers
that the heads read, the pose encoding, and every third row and column of depth and confidence.
"""

import json
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import TINY_OMEGA

from models.vggt.backbone import FrozenVGGT, network_size, resize_images
from models.vggt.config import OmegaConfig
from models.vggt.network import VGGT, random_vggt
from models.vggt.weights import read_config
from utils.errors import UserError

REFERENCE = Path(__file__).parents[2] / "fixtures" / "vggt_omega_reference.npz"
SHAPES = {"wide": (1, 3, 3, 32, 48), "tall": (2, 1, 3, 48, 16)}


def drawn(name, shape):
    """Weights that depend on name and shape alone."""
    if name.endswith("bias_mask"):
        return np.repeat([1.0, 0.0, 1.0], shape[0] // 3)
    if name.endswith("periods"):  # Not what ours would begin with.
        return 90.0 ** (np.arange(shape[0]) / shape[0])
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 1:
        return 0.1 * values + (0 if name.endswith("bias") else 1)
    return values if "token" in name else values / np.prod(shape[1:]) ** 0.5


def write(folder, state, config=TINY_OMEGA):
    (folder / "config.json").write_text(json.dumps(asdict(config)))
    save_file(state, folder / "vggt_omega_1b_512.safetensors")


@pytest.fixture(scope="module")
def state():
    with torch.device("meta"):
        shapes = {name: tuple(v.shape) for name, v in VGGT(TINY_OMEGA).state_dict().items()}
    return {name: torch.from_numpy(drawn(name, shape)).float() for name, shape in shapes.items()}


@pytest.fixture
def omega(state, tmp_path):
    write(tmp_path, state)
    return VGGT.from_pretrained(tmp_path)


def refusal(folder):
    with pytest.raises(UserError) as caught:
        VGGT.from_pretrained(folder)
    return str(caught.value)


@pytest.mark.parametrize("case", SHAPES)
@torch.no_grad()
def test_equals_the_published_network(omega, case):
    shape = SHAPES[case]
    values = np.random.RandomState(5 + shape[1]).random_sample(shape)
    images = torch.from_numpy(values).float()
    prediction = omega(images)
    ours = {
        "tokens": torch.stack(omega.aggregator(images)[0]),
        "pose_enc": prediction.pose_enc,
        "depth": prediction.depth[..., ::3, ::3, 0],
        "depth_conf": prediction.depth_conf[..., ::3, ::3],
    }
    with np.load(REFERENCE) as expected:
        for name, value in ours.items():
            theirs = torch.from_numpy(expected[f"{case}_{name}"])
            torch.testing.assert_close(value, theirs, rtol=1e-5, atol=1e-5)
    assert prediction.world_points is None


def test_state_dict_of_the_published_sizes():
    with torch.device("meta"):
        network = VGGT(OmegaConfig())
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert len(shapes) == 1411
    assert sum(p.numel() for p in network.parameters()) == 1_143_814_185
    assert sum(name.endswith("attn.qkv.bias_mask") for name in shapes) == 3 * 24 + 4
    for name, shape in {
        "aggregator.camera_token": (1, 2, 1, 1024),
        "aggregator.register_token": (1, 2, 16, 1024),
        "aggregator.rope_embed.periods": (16,),
        "aggregator.patch_embed.storage_tokens": (1, 4, 1024),
        "aggregator.patch_embed.patch_embed.proj.weight": (1024, 3, 16, 16),
        "aggregator.inter_frame_blocks.23.attn.k_norm.weight": (64,),
        "camera_head.trunk.3.attn.qkv.bias_mask": (6144,),
        "camera_head.camera_branch.2.weight": (9, 1024),
        "dense_head.scratch.refinenet4.resConfUnit2.conv2.weight": (256, 256, 3, 3),
        "dense_head.proj_conf.weight": (16, 256, 1, 1),
    }.items():
        assert shapes[name] == shape


def test_the_head_for_texts_is_left_out_and_named(state, tmp_path, caplog):
    write(tmp_path, {**state, "text_alignment_head.language_token": torch.zeros(1)})
    with caplog.at_level("INFO"):
        VGGT.from_pretrained(tmp_path)
    assert "text_alignment_head is left out" in caplog.text


def test_missing_and_surplus_entries_are_refused(state, tmp_path):
    lacking = dict(state)
    lacking["stranger"] = lacking.pop("aggregator.rope_embed.periods")
    write(tmp_path, lacking)
    message = refusal(tmp_path)
    assert "1 missing (aggregator.rope_embed.periods); 1 unexpected (stranger)" in message


def test_weights_of_the_other_network(state, tiny_vggt, tmp_path, tiny_config):
    write(tmp_path, state, tiny_config)
    assert "holds the weights of VGGT-Omega" in refusal(tmp_path)
    write(tmp_path, tiny_vggt.state_dict())
    assert "holds the weights of VGGT, but" in refusal(tmp_path)
    assert """echo '{"network": "vggt-omega"}' >""" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("network", "dust3r", "network is 'dust3r', expected vggt or vggt-omega"),
        ("network", ["vggt"], "network is"),
        ("patch_size", 14, "patch_size=14 must be a multiple of 4"),
        ("register_blocks", [1, 5], "register_blocks=(1, 5) must increase and be below 5"),
        ("register_blocks", [3, 1], "register_blocks"),
        ("register_blocks", [1.5], "register_blocks"),
        ("dino_heads", 8, "dino_heads=8"),
        ("num_storage_tokens", 10**10, "num_storage_tokens"),
        ("embed_dim", 8192, "more than 1e+10 weights"),
    ],
)
def test_impossible_sizes_are_refused(state, tmp_path, name, value, said):
    sizes = {**asdict(TINY_OMEGA), "depth": 5 if name != "embed_dim" else 24, name: value}
    write(tmp_path, state)
    if name == "embed_dim":
        sizes["intermediate_layer_idx"] = [4, 11, 17, 23]
    (tmp_path / "config.json").write_text(json.dumps(sizes))
    assert said in refusal(tmp_path)


def test_a_name_alone_means_the_published_sizes(tmp_path):
    (tmp_path / "config.json").write_text('{"network": "vggt-omega"}')
    assert read_config(tmp_path) == OmegaConfig()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 1500), (336, 512)),
        ((480, 640), (384, 512)),
        ((640, 480), (512, 384)),
        ((512, 640), (416, 512)),
        ((300, 512), (304, 512)),
    ],
)
def test_pictures_are_resized_as_published_in_its_mode_max_size(size, expected):
    assert network_size(*size, OmegaConfig.img_size, OmegaConfig.patch_size) == expected


def test_serves_as_a_backbone(omega):
    images = torch.rand(2, 3, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    backbone = FrozenVGGT(omega, tuned_blocks=2)
    features = backbone(images, ("camera", "depth"))
    assert features.network_size == (32, 48)
    assert [tuple(tokens.shape) for tokens in features.tokens] == [(2, 3, 32, 2, 3)] * 4
    expected = omega(resize_images(images, (32, 48)))
    torch.testing.assert_close(features.depth, expected.depth.squeeze(-1))
    torch.testing.assert_close(features.pose_enc, expected.pose_enc)
    features.tokens[-1].square().sum().backward()
    raised = [p for name, p in backbone.named_parameters() if ".up." in name]
    # The last pair but one meets by camera and register tokens alone, and is tuned, too.
    assert len(raised) == 2 * 2 * 4
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in raised)


def test_random_weights_are_written_and_read_back(tmp_path):
    network = random_vggt(TINY_OMEGA, seed=0)
    network.save_pretrained(tmp_path)
    loaded = VGGT.from_pretrained(tmp_path)
    assert loaded.config == TINY_OMEGA
    for name, value in network.state_dict().items():
        # What is constant keeps its precision.
        constant = name.endswith(("periods", "bias_mask"))
        tolerance = {"rtol": 0, "atol": 0} if constant else {"rtol": 1e-3, "atol": 1e-6}
        torch.testing.assert_close(loaded.state_dict()[name], value, **tolerance)
    images = torch.rand(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    assert loaded(images).depth.isfinite().all()
    prediction = network.train()(images)
    sum(x.square().sum() for x in vars(prediction).values() if torch.is_tensor(x)).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_patches_do_not_meet_in_a_register_block(omega):
    images = torch.rand(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    layers, start = omega.aggregator(images)
    for layer, pair in zip(layers, TINY_OMEGA.intermediate_layer_idx, strict=True):
        in_frame, after = layer.chunk(2, -1)
        alike = torch.equal(in_frame[:, :, start:], after[:, :, start:])
        assert alike == (pair in TINY_OMEGA.register_blocks)
        assert not torch.allclose(in_frame[:, :, :start], after[:, :, :start])
