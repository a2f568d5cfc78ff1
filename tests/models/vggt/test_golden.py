"""Ours equals the published network, tensor by tensor."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from models.vggt.backbone import network_size, resize_images
from models.vggt.config import VGGTConfig
from models.vggt.network import VGGT
from models.vggt.pose_encoding import decode_pose, encode_pose
from utils.cameras import unproject

pytestmark = pytest.mark.data

CASES = ["case_a_square", "case_b_56x84", "case_c_batch2_56x126", "case_d_single_112x98"]
LIMIT = 2e-5


def assert_equal(actual, expected, name):
    assert actual.shape == expected.shape, name
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= LIMIT, f"{name}: {error:.2e} of the maximum"


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_every_tensor(golden, golden_vggt, case, monkeypatch):
    expected = load_file(golden / f"{case}.safetensors")
    aggregator, images = golden_vggt.aggregator, expected["images"]
    grid = (images.shape[-2] // 14, images.shape[-1] // 14)
    tokens = aggregator.patch_embed(
        ((images - aggregator.image_mean) / aggregator.image_std).flatten(0, 1)
    )
    embedding = aggregator.patch_embed.position_embedding(grid)
    assert_equal(embedding, expected["dino_pos_embed"], "dino_pos_embed")
    assert_equal(tokens[:, 0], expected["dino_clstoken"], "dino_clstoken")
    assert_equal(tokens[:, 5:], expected["patch_tokens"], "patch_tokens")

    prediction = golden_vggt(images)
    for index, pose in enumerate(prediction.pose_encodings):
        assert_equal(pose, expected[f"pose_enc_iter{index}"], f"pose iteration {index}")
    assert_equal(prediction.pose_enc, expected["pose_enc_iter3"], "pose_enc")
    for name in ("depth", "depth_conf", "world_points", "world_points_conf"):
        assert_equal(getattr(prediction, name), expected[name], name)

    read, _ = aggregator(images)
    monkeypatch.setattr(aggregator, "kept_layers", range(5))
    layers, patch_start = aggregator(images)
    assert patch_start == 5
    for index, layer in enumerate(layers):
        assert_equal(layer, expected[f"agg_layer_{index:02d}"], f"layer {index}")
    assert all(torch.equal(a, layers[i]) for a, i in zip(read, (0, 2, 3, 4), strict=True))


def test_geometry(golden):
    expected = load_file(golden / "geometry.safetensors")
    height, width = expected["image_hw"].tolist()
    cameras = decode_pose(expected["pose_enc"], height, width)
    assert_equal(cameras.w2c[..., :3, :], expected["extrinsic"], "extrinsic")
    assert_equal(cameras.intrinsics, expected["intrinsic"], "intrinsic")
    again = encode_pose(cameras, height, width)
    assert_equal(again, expected["pose_enc_roundtrip"], "pose_enc_roundtrip")
    depth = expected["depth"].squeeze(-1)
    # The published code counts pixels from integers.
    rows, columns = torch.meshgrid(
        torch.arange(depth.shape[-2]), torch.arange(depth.shape[-1]), indexing="ij"
    )
    pixels = torch.stack([columns, rows], -1).flatten(0, 1).float().expand(2, 3, -1, -1)
    points = unproject(pixels, depth.flatten(2), cameras).unflatten(2, depth.shape[-2:])
    assert_equal(points, expected["world_points_from_depth"], "points")


@pytest.mark.parametrize(
    ("name", "mode"), [("landscape", "crop"), ("portrait", "pad"), ("tall", "pad")]
)
def test_whole_pictures_are_resized_as_published(golden, name, mode):
    expected = load_file(golden / "preprocess" / "expected.safetensors")
    with Image.open(golden / "preprocess" / f"{name}.png") as file:
        image = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1) / 255
    size = network_size(*image.shape[-2:], 518, 14)
    resized = resize_images(image[None, None], size)[0]
    # Padding is white, with the odd pixel at the right and the bottom.
    shape = expected[f"{name}.{mode}.shape"].tolist()
    spare_y, spare_x = shape[-2] - size[0], shape[-1] - size[1]
    padding = (spare_x // 2, spare_x - spare_x // 2, spare_y // 2, spare_y - spare_y // 2)
    padded = torch.nn.functional.pad(resized, padding, value=1.0)
    assert list(padded.shape) == shape
    # The published code rounds and clips to whole grey levels after rows and after columns; only
    # clipped pixels of this noise differ by more than that.
    errors = (padded[:, :, 3::7, 3::7] - expected[f"{name}.{mode}.sub7"]).abs()
    assert errors.mean() < 0.4 / 255
    assert (errors > 1.5 / 255).float().mean() < 0.01


def test_state_dict_of_vggt_1b(golden):
    path = golden.parent / "vggt_1b_state_dict.tsv"
    lines = [line.split("\t") for line in path.read_text().splitlines() if line]
    listed = {key: shape for key, shape in lines if not key.startswith("track_head.")}
    with torch.device("meta"):
        state = VGGT(VGGTConfig()).state_dict()
    assert {key: str(tuple(value.shape)) for key, value in state.items()} == listed
    assert sum(value.numel() for value in state.values()) == 1_190_596_120
