"""What all tests share; each module of ``tests/fixtures`` says what it provides."""

import pytest
import torch

pytest_plugins = [
    "dtu_layout",
    "centered_scene",
    "colmap_layout",
    "scene_layouts",
    "tiny_models",
    "model_inputs",
]


@pytest.fixture(autouse=True)
def one_thread():
    """Compute on one thread: tensors are small, and several tests run at once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
