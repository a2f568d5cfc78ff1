import torch
from torch import nn

from training.weight_averaging import AveragedWeights


def averaged(values, decay):
    parameter = nn.Parameter(torch.tensor([float(values[0])]))
    average = AveragedWeights([parameter], decay)
    for value in values[1:]:
        parameter.data.fill_(value)
        average.update()
    return parameter, average


def test_early_steps_count_by_their_number_and_late_ones_by_the_decay():
    # After the first update a tenth of the start is left, after the second 2/11 of that mean.
    parameter, average = averaged([1, 2, 4], 0.9)
    first = 0.1 * 1 + 0.9 * 2
    torch.testing.assert_close(average.values[0], torch.tensor([2 / 11 * first + 9 / 11 * 4]))
    _, average = averaged([0] + [1] * 500 + [3], 0.9)
    torch.testing.assert_close(average.values[0], torch.tensor([0.9 * 1 + 0.1 * 3]))


def test_it_stands_in_and_steps_aside():
    parameter, average = averaged([0, 1, 0], 0.9)
    mean = average.values[0].clone()
    with average.standing_in():
        assert torch.equal(parameter, mean)
    assert parameter.item() == 0 and torch.equal(average.values[0], mean)


def test_an_optimizer_goes_on_with_what_is_trained():
    parameter, average = averaged([0, 1, 2], 0.9)
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    with average.standing_in():
        pass
    parameter.grad = torch.tensor([0.5])
    optimizer.step()
    assert parameter.item() == 1.5


def test_no_decay_is_the_last_step():
    parameter, average = averaged([0, 1, 5], 0.0)
    assert torch.equal(average.values[0], parameter.detach())


def test_it_resumes_from_the_average_and_its_state():
    parameter, average = averaged([0, 1, 2, 4], 0.9)
    copy = nn.Parameter(average.values[0].clone())
    resumed = AveragedWeights([copy], 0.9)
    resumed.restore(average.state())
    assert torch.equal(copy, parameter)
    for one in (average, resumed):
        one.update()
    assert torch.equal(average.values[0], resumed.values[0])
