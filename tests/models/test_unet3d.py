import pytest
import torch
from torch import nn

from models.unet3d import Conv3d


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_pytorch_with_gradients(stride, batch):
    torch.manual_seed(0)
    ours = Conv3d(4, 6, 3, stride=stride, padding=1)
    theirs = nn.Conv3d(4, 6, 3, stride=stride, padding=1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(batch, 4, 5, 6, 7)
    results = []
    for network in (ours, theirs):
        inputs = x.clone().requires_grad_()
        output = network(inputs)
        output.square().sum().backward()
        parameters = [parameter.grad for parameter in network.parameters()]
        results.append([output, inputs.grad, *parameters])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_autocast_and_double_precision_are_left_to_pytorch():
    network = Conv3d(2, 3, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(1, 2, 4, 4, 4)).dtype == torch.bfloat16
    assert network.double()(torch.randn(1, 2, 4, 4, 4).double()).dtype == torch.float64
