import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Over tensors this small threads only wait for each other, on a busy machine for long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
