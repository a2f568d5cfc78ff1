"""Reference vectors of the network at a tiny size; see their README for how they were made."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import SMALLEST_VGGT

from models.vggt.config import VGGTConfig
from models.vggt.network import VGGT, random_vggt

SHARED = Path(__file__).parents[4] / "shared"


@pytest.fixture(scope="session")
def golden():
    folder = SHARED / "vggt_golden"
    if not folder.is_dir():
        pytest.skip(f"no reference vectors in {folder}")
    return folder


@pytest.fixture(scope="session")
def golden_vggt(golden):
    config = json.loads((golden / "config.json").read_text())["config"]
    vggt = VGGT(VGGTConfig.from_dict(config))
    vggt.load_state_dict(load_file(golden / "weights.safetensors"))
    return vggt.eval()


@pytest.fixture
def tiny_config():
    return SMALLEST_VGGT


@pytest.fixture
def tiny_vggt(tiny_config):
    return random_vggt(tiny_config, seed=0, layer_scale=1.0).eval()


@pytest.fixture
def images():
    return torch.rand(1, 3, 3, 28, 42, generator=torch.Generator().manual_seed(1))
