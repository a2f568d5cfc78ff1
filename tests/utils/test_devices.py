import torch

from utils.devices import generator_for


def draw(*key):
    return torch.rand(4, generator=generator_for("cpu", *key)).tolist()


def test_same_key_same_numbers_other_key_others():
    assert draw(1, 2, 3) == draw(1, 2, 3)
    keys = [(1, 2, 3), (1, 2, 4), (1, 3, 2), (0, 2, 3), (2, 1, 3), (1, 2), (1, 2, 3, 0)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)
