"""Compilation of the renderer's kernels, each on its first call on an accelerator.

Compiling the whole renderer would take many minutes, as sphere tracing unrolls. The first two axes
of a kernel's tensors are (scene, ray) and may have size 1 for broadcasting. Their sizes may change
between calls; all other axes are fixed. A kernel is compiled at most twice: for one scene and for
several.
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
"""Rows are padded to a multiple of this many numbers (16 bytes): a kernel copies a tensor with
another alignment."""


def on_host(tensor: Tensor) -> bool:
    """Tell whether a tensor is on the CPU, where one scene is rendered at a time.

    Skipping rays is faster there; on an accelerator it would synchronise with the host, and change
    the shapes of every batch.
    """
    return tensor.device.type == "cpu"


def where_needed(
    needed: Bool[Tensor, "scene ray"],
    function: Callable[..., Float[Tensor, "scene ray ..."]],
    arguments: tuple[Tensor, ...],
    otherwise: Float[Tensor, "scene ray ..."],
) -> Float[Tensor, "scene ray ..."]:
    """Evaluate a function of rays where ``needed``, and return ``otherwise`` elsewhere."""
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
    """Decorate a function of tensors to be compiled on an accelerator, but not on the CPU."""

    @functools.wraps(function)
    def choose(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        first: Any = arguments[0]
        if torch.compiler.is_compiling() or on_host(first):
            return function(*arguments, **options)
        return compiled(function)(*map(_with_stable_layout, arguments), **options)  # pyright: ignore

    return choose


def _with_stable_layout(argument: Tensor) -> Tensor:
    """Make an argument contiguous and mark its first axes dynamic, to avoid recompilations."""
    # An axis of size 1 may have any stride; flattening first gives it the standard one.
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
) -> tuple[Float[Tensor, "scene 1 group padded"], ...]:
    """Split a table into groups of slots, one for each call of a kernel.

    On the CPU, one group has all used slots. On an accelerator, each group has ``count`` slots,
    padded with ``filler``: a kernel that reduces over all slots would take minutes to compile.
    """
    if on_host(table):
        return (table[:, None, used.any(0)],)
    slots, values = table.shape[1:]
    table = F.pad(table, (0, -values % _ALIGNED, 0, -slots % count), value=filler)
    return table.unflatten(1, (-1, count)).transpose(0, 1)[:, :, None].contiguous().unbind(0)
