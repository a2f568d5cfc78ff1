import copy
import pickle
from dataclasses import dataclass

import pytest
import torch

from models.cuda_graphs import GraphCache, flatten_tensors, rebuild_tensors
from utils.cameras import Cameras


@dataclass(frozen=True)
class Pair:
    cameras: Cameras
    size: tuple[int, int]
    mask: torch.Tensor | None = None


def make_pair(factor=1.0):
    return Pair(Cameras(factor * torch.eye(3), factor * torch.eye(4)), (4, 5))


def test_values_are_rebuilt_with_other_tensors():
    tensors, layout = flatten_tensors((make_pair(), 3, "name"))
    assert [tensor.shape for tensor in tensors] == [(3, 3), (4, 4)]
    pair, number, name = rebuild_tensors(layout, iter([2 * tensor for tensor in tensors]))
    assert (pair.size, pair.mask, number, name) == ((4, 5), None, 3, "name")
    torch.testing.assert_close(pair.cameras.c2w, 2 * torch.eye(4))


def test_layouts_tell_structures_and_constants_apart():
    layouts = {
        flatten_tensors(value)[1]
        for value in [
            (make_pair(), 3),
            (make_pair(2.0), 3),
            (make_pair(), 4),
            (make_pair(), torch.ones(1)),
            (make_pair(), None),
        ]
    }
    assert len(layouts) == 4


def test_without_a_gpu_functions_just_run():
    calls, cache = [], GraphCache()
    for _ in range(3):
        result = cache(lambda x, factor: calls.append(factor) or x * factor, torch.ones(2), 3)
    torch.testing.assert_close(result, torch.full((2,), 3.0))
    assert calls == [3, 3, 3]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_are_empty(copied):
    cache = GraphCache(capacity=3)
    assert copied(cache) is not cache and copied(cache).capacity == 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
class TestOnGpu:
    @torch.no_grad()
    def test_replays_read_new_arguments_and_new_weights(self):
        cache, layer = GraphCache(), torch.nn.Linear(3, 2).cuda()
        for step in range(5):
            layer.weight.fill_(step)
            x = torch.full((4, 3), 1.0 + step, device="cuda")
            torch.testing.assert_close(cache(layer.forward, x), layer(x))
        assert cache.enabled

    @torch.no_grad()
    def test_results_outlive_the_next_replay(self):
        cache = GraphCache()
        results = [cache(torch.square, torch.full((3,), i, device="cuda")) for i in range(5)]
        assert [int(result[0]) for result in results] == [0, 1, 4, 9, 16]

    @torch.no_grad()
    def test_what_cannot_be_captured_just_runs(self, caplog):
        cache = GraphCache()
        for i in range(4):
            x = torch.full((3,), float(i), device="cuda")
            assert cache(lambda y: y * y.sum().item(), x)[0].item() == 3 * i * i
        assert not cache.enabled and len(caplog.records) == 1

    def test_gradients_are_never_lost(self):
        cache, x = GraphCache(), torch.ones(2, device="cuda", requires_grad=True)
        for _ in range(3):
            assert cache(torch.square, x).requires_grad
