"""CUDA graphs of functions of tensors: many small kernels are started by one call.

Encoding three views takes some thousand kernels, most of them shorter than the time that Python
needs to start them. A graph replays them without Python, at fixed places in memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_CAPACITY = 8


@dataclasses.dataclass(frozen=True)
class _Captured:
    """A graph, the tensors that it reads and those that it writes."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: list[Tensor]
    layout: object
    """Structure of the result; see ``flatten_tensors``."""


class GraphCache:
    """Runs functions through CUDA graphs, one for each function and each shape of its arguments.

    The first call with some shapes runs the function, the second one captures it, all others replay
    what was captured. Without a GPU, with gradients, or if capturing fails, the function just runs.
    Functions must not wait for the GPU, and must depend on their tensors and on module parameters
    alone; parameters may change in place. Copies and pickles of a cache are empty.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        """Make an empty cache that holds so many graphs, those used last."""
        self.enabled = True
        self.capacity = capacity
        self._captured: OrderedDict[object, _Captured | None] = OrderedDict()
        self._pool: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[GraphCache], tuple[int]]:
        """Return what makes an empty cache: graphs belong to the memory of one process."""
        return GraphCache, (self.capacity,)

    def __call__(self, function: Callable[..., ResultT], *arguments: Any) -> ResultT:  # noqa: ANN401
        """Return ``function(*arguments)``.

        Arguments are tensors, dataclasses and tuples of them, and hashable values.
        """
        tensors, layout = flatten_tensors(arguments)
        on_gpu = bool(tensors) and all(tensor.is_cuda for tensor in tensors)
        if not on_gpu or not self.enabled or torch.is_grad_enabled():
            return function(*arguments)
        shapes = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        key = (getattr(function, "__qualname__", function), layout, shapes, _modes())
        with self._lock, torch.cuda.device(tensors[0].device), _without_autocast_cache():
            if key not in self._captured:
                self._remember(key, None)
                return function(*arguments)
            self._captured.move_to_end(key)
            captured = self._captured[key]
            if captured is None:
                captured = self._capture(function, tensors, layout)
                if captured is None:
                    return function(*arguments)
                self._captured[key] = captured
            return _replay(captured, tensors)

    def _remember(self, key: object, captured: _Captured | None) -> None:
        self._captured[key] = captured
        if len(self._captured) > self.capacity:
            self._captured.popitem(last=False)

    def _capture(
        self, function: Callable[..., object], tensors: list[Tensor], layout: object
    ) -> _Captured | None:
        if self._pool is None:
            # Results are copied after each replay, so that graphs can share their memory.
            self._pool = torch.cuda.graph_pool_handle()
        inputs = [tensor.clone(memory_format=torch.contiguous_format) for tensor in tensors]
        arguments = rebuild_tensors(layout, iter(inputs))
        assert isinstance(arguments, tuple)
        graph = torch.cuda.CUDAGraph()
        try:
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
                result = function(*arguments)
        except RuntimeError as error:
            self.enabled = False
            # The end of a capture that has failed fails, too.
            while isinstance(error.__context__, RuntimeError):
                error = error.__context__
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            logger.warning("without CUDA graphs, which is slower: %s", reason)
            torch.cuda.synchronize()
            return None
        outputs, result_layout = flatten_tensors(result)
        return _Captured(graph, inputs, outputs, result_layout)


def _replay(captured: _Captured, tensors: list[Tensor]) -> Any:  # noqa: ANN401
    for place, tensor in zip(captured.inputs, tensors, strict=True):
        place.copy_(tensor, non_blocking=True)
    captured.graph.replay()
    return rebuild_tensors(captured.layout, iter([output.clone() for output in captured.outputs]))


@contextlib.contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Let autocast convert weights inside of a graph: a cached copy would not last as long."""
    kept = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(kept)


def _modes() -> tuple[object, ...]:
    """Return the modes of PyTorch that change what a function computes."""
    on = torch.is_autocast_enabled("cuda")
    return on, torch.get_autocast_dtype("cuda") if on else None, torch.is_inference_mode_enabled()


def flatten_tensors(value: object) -> tuple[list[Tensor], object]:
    """Return the tensors of nested dataclasses and tuples, and a hashable layout for the rest."""
    if isinstance(value, Tensor):
        return [value], Tensor
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind, parts = type(value), [getattr(value, f.name) for f in dataclasses.fields(value)]
    elif isinstance(value, tuple):
        kind, parts = tuple, list(value)
    else:
        return [], (None, value)
    flat = [flatten_tensors(part) for part in parts]
    return [tensor for some, _ in flat for tensor in some], (
        kind,
        tuple(layout for _, layout in flat),
    )


def rebuild_tensors(layout: Any, tensors: Iterator[Tensor]) -> object:  # noqa: ANN401
    """Undo ``flatten_tensors`` with other tensors."""
    if layout is Tensor:
        return next(tensors)
    kind, rest = layout
    if kind is None:
        return rest
    parts = [rebuild_tensors(part, tensors) for part in rest]
    return tuple(parts) if kind is tuple else kind(*parts)
