"""What files of models say beside their weights is checked before anything is made of it."""

from dataclasses import asdict

import pytest
import torch

from models.checkpoints.baselines import KIND, MVSNERF_PARTS, baseline_checkpoint
from models.checkpoints.scene_file import SceneHeader, header_of, load_finetuned, read_scene_file
from models.config import ModelConfig
from utils.errors import UserError

HEADER = asdict(SceneHeader("a", (0, 1), (2,), 2, ModelConfig(), "0", {}))
WEIGHTS = {"model.volume.points.inward.weight": torch.zeros(1)}


@pytest.mark.parametrize(
    "parts",
    [
        {"vggt_nerf_scene": None},
        {"vggt_nerf_scene": []},
        {"state": None},
        {"state": {"images": 3}},
        {"training": None},
    ],
)
def test_parts_of_a_scene_file_that_are_something_else(parts, tmp_path):
    whole = {"vggt_nerf_scene": HEADER, "state": WEIGHTS, "training": {}}
    path = tmp_path / "latest.tar"
    torch.save(whole, path)
    assert read_scene_file(path).keys() == whole.keys()
    torch.save(whole | parts, path)
    with pytest.raises(UserError, match=r"latest.tar: is damaged or of another version"):
        load_finetuned(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scene", 3),
        ("train_ids", ("a", "b")),
        ("test_ids", (3.5,)),
        ("num_sources", 10**9),
        ("num_sources", 0),
        ("num_sources", "2"),
        ("model", []),
        ("settings", None),
        ("origin", (0.0,)),
        ("mvsnerf", {"ray_samples": 10**9}),
    ],
)
def test_headers_of_scenes(name, value):
    assert asdict(header_of({"vggt_nerf_scene": HEADER}, "a.tar")) == HEADER
    with pytest.raises(UserError, match=rf"^a.tar: .*{name.partition('_')[0]}"):
        header_of({"vggt_nerf_scene": HEADER | {name: value}}, "a.tar")


@pytest.mark.parametrize("weights", [None, 3, [], "a", {"a": 3}])
def test_weights_of_baselines_that_are_no_tensors(weights, tmp_path):
    for content in (
        dict.fromkeys(MVSNERF_PARTS, weights),
        {KIND: {"settings": {}, "model": "mvsnerf"}, "state_dict": weights},
    ):
        with pytest.raises(UserError, match="its weights are not tensors"):
            baseline_checkpoint(content, tmp_path / "a.ckpt")
