"""Kernels of the renderer, each compiled on its own when it first runs on an accelerator.

Compiling the whole renderer would take many minutes, as sphere tracing unrolls. The first two axes
of a kernel's tensors are (scene, ray), where an axis of size 1 stands for all scenes or rays. Their
sizes may change from call to call; all other axes are fixed. A kernel is compiled twice at most:
for one scene and for many.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_ALIGNED = 4
"""Rows are padded to a multiple of so many numbers (16 bytes): a kernel would copy a tensor that
starts elsewhere."""


def on_host(tensor: Tensor) -> bool:
    """Tell whether a tensor is on the CPU, where one scene is rendered at a time.

    Leaving rays out pays there; elsewhere the host would wait, and every batch have another shape.
    """
    return tensor.device.type == "cpu"


def where_needed(
    needed: Bool[Tensor, "scene ray"],
    function: Callable[..., Float[Tensor, "scene ray ..."]],
    arguments: tuple[Tensor, ...],
    otherwise: Float[Tensor, "scene ray ..."],
) -> Float[Tensor, "scene ray ..."]:
    """Evaluate a function of rays where it is needed, and return other values elsewhere."""
    if not on_host(needed):
        needed = needed.reshape(needed.shape + (1,) * (otherwise.ndim - needed.ndim))
        return torch.where(needed, function(*arguments), otherwise)
    index = needed[0].nonzero()[:, 0]
    result = otherwise.clone()
    if len(index):
        result[:, index] = function(*(argument[:, index] for argument in arguments))
    return result


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function once."""
    return torch.compile(function, fullgraph=True)


def fused(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Compile a function of tensors into few kernels on an accelerator; not so on the CPU."""

    @functools.wraps(function)
    def choose(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        first: Any = arguments[0]
        if torch.compiler.is_compiling() or on_host(first):
            return function(*arguments, **options)
        return compiled(function)(*map(_steady, arguments), **options)  # pyright: ignore

    return choose


def _steady(argument: Tensor) -> Tensor:
    """Bring an argument into the form that a kernel is compiled for: contiguous, of any size."""
    # Flat in between: an axis of size 1 may have any stride, and each would be compiled for.
    argument = argument.contiguous().view(-1).view(argument.shape)
    for axis in range(min(2, argument.ndim)):
        if argument.shape[axis] > 1:
            torch._dynamo.maybe_mark_dynamic(argument, axis)
    return argument


def slot_groups(
    table: Float[Tensor, "scene slot value"],
    count: int,
    used: Bool[Tensor, "scene slot"],
    filler: float = 0.0,
) -> tuple[Float[Tensor, "scene 1 few padded"], ...]:
    """Cut a table into groups of slots, one for each call of a kernel.

    On the CPU it is one group of all that are used. Elsewhere these are groups of ``count``, filled
    up with rows of ``filler``: a kernel that reduces over all slots takes minutes to compile.
    """
    if on_host(table):
        return (table[:, None, used.any(0)],)
    slots, values = table.shape[1:]
    table = F.pad(table, (0, -values % _ALIGNED, 0, -slots % count), value=filler)
    return table.unflatten(1, (-1, count)).transpose(0, 1)[:, :, None].contiguous().unbind(0)
