"""CUDA graphs of functions of tensors: one call launches all kernels of a function.

Encoding three views takes on the order of a thousand kernels, most shorter than their launch from
Python. A graph replays them without Python, on buffers at fixed addresses.
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
"""Maximum number of graphs in a cache."""


@dataclasses.dataclass(frozen=True)
class _Captured:
    """A graph with its input and output buffers."""

    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    outputs: list[Tensor]
    layout: object
    """Structure of the result; see ``flatten_tensors``."""


class GraphCache:
    """Runs functions through CUDA graphs, one per function and shapes of its arguments.

    The first call with given shapes runs the function, the second captures a graph, later ones
    replay it. Without a GPU, with gradients, or if the capture fails, the function runs eagerly.
    Functions must not synchronise with the GPU, and may depend only on their arguments and on
    module parameters; parameters may change in place. Copies and pickles of a cache are empty.
    """

    def __init__(self, capacity: int = _CAPACITY) -> None:
        """Make an empty cache that keeps the ``capacity`` most recently used graphs."""
        self.enabled = True
        self.capacity = capacity
        self._captured: OrderedDict[object, _Captured | None] = OrderedDict()
        self._pool: Any = None
        """Handle of the graphs' memory pool; its type depends on PyTorch's version."""
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[GraphCache], tuple[int]]:
        """Pickle as an empty cache: graphs belong to the memory of one process."""
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
                self._captured[key] = None
                if len(self._captured) > self.capacity:
                    self._captured.popitem(last=False)
                return function(*arguments)
            self._captured.move_to_end(key)
            captured = self._captured[key]
            if captured is None:
                captured = self._capture(function, tensors, layout)
                if captured is None:
                    return function(*arguments)
                self._captured[key] = captured
            return _replay(captured, tensors)

    def _capture(
        self, function: Callable[..., object], tensors: list[Tensor], layout: object
    ) -> _Captured | None:
        if self._pool is None:
            # Graphs can share a memory pool, because outputs are copied after each replay.
            self._pool = torch.cuda.graph_pool_handle()
        inputs = [tensor.clone() for tensor in tensors]
        arguments = rebuild_tensors(layout, iter(inputs))
        assert isinstance(arguments, tuple)
        graph = torch.cuda.CUDAGraph()
        try:
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
                result = function(*arguments)
        except RuntimeError as error:
            self.enabled = False
            # Ending a failed capture raises again; report the first error.
            while isinstance(error.__context__, RuntimeError):
                error = error.__context__
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            logger.warning("CUDA graphs are off, which is slower: %s", reason)
            torch.cuda.synchronize()
            return None
        outputs, result_layout = flatten_tensors(result)
        return _Captured(graph, inputs, outputs, result_layout)


def _replay(captured: _Captured, tensors: list[Tensor]) -> Any:  # noqa: ANN401
    for buffer, tensor in zip(captured.inputs, tensors, strict=True):
        buffer.copy_(tensor, non_blocking=True)
    captured.graph.replay()
    return rebuild_tensors(captured.layout, iter([output.clone() for output in captured.outputs]))


@contextlib.contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Make autocast convert weights inside the graph: cached copies would be freed before it."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


def _modes() -> tuple[object, ...]:
    """Return PyTorch's global modes that change the result of a function."""
    autocast = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
    return autocast, torch.is_inference_mode_enabled()


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
    layouts = tuple(layout for _, layout in flat)
    return [tensor for tensors, _ in flat for tensor in tensors], (kind, layouts)


def rebuild_tensors(layout: Any, tensors: Iterator[Tensor]) -> object:  # noqa: ANN401
    """Invert ``flatten_tensors``, with other tensors."""
    if layout is Tensor:
        return next(tensors)
    kind, rest = layout
    if kind is None:
        return rest
    parts = [rebuild_tensors(part, tensors) for part in rest]
    return tuple(parts) if kind is tuple else kind(*parts)
