"""What all tests share; each module of ``tests/fixtures`` says what it provides."""

import os

import pytest
import torch

pytest_plugins = [
    *("commands", "dtu_layout", "centered_scene", "colmap_layout", "scene_layouts"),
    *("tiny_models", "model_inputs", "textured_planes", "videos", "web_server"),
]

# One thread, in processes that tests start, too: tensors are small, and several tests run at once.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_random_numbers():
    """Every test draws the same numbers, whatever ran before it."""
    torch.manual_seed(0)
