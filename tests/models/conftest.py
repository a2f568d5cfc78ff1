import pytest
import torch
from model_inputs import random_views, ring_cameras


@pytest.fixture(scope="session")
def encoded(tiny_model):
    """Three views of a scene between 2 and 6, encoded without gradients."""
    with torch.no_grad():
        return tiny_model.encode(random_views(1, 3), torch.tensor([[2.0, 6.0]]))


@pytest.fixture
def camera():
    return ring_cameras(1)
