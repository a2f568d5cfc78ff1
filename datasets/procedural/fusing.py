"""Kernels of the renderer, each compiled on its own when it first runs on an accelerator.

Compiling the renderer whole takes many minutes: sphere tracing unrolls into tens of thousands of
operations. Its pieces compile in seconds, and what runs between them is small.

The first two axes of a piece's tensors are (scene, ray), where an axis of size 1 stands for all
scenes or rays. Their sizes may change from call to call; all other axes are fixed. A piece is
compiled twice at most: for one scene and for many.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_ALIGNED = 4
"""Rows of tables are padded to a multiple of so many numbers (16 bytes).

A kernel would copy a table that starts elsewhere.
"""


def on_host(tensor: Tensor) -> bool:
    """Tell whether a tensor is on the CPU, where the renderer works in another order."""
    return tensor.device.type == "cpu"


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function once."""
    return torch.compile(function, fullgraph=True)


def fused(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function of tensors be few kernels on an accelerator; on the CPU it stays as it is.

    Its arguments are tensors, or dataclasses of tensors.
    """

    @functools.wraps(function)
    def choose(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        inlined = torch.compiler.is_compiling()
        if inlined or on_host(_first_tensor(arguments[0])):
            return function(*arguments, **options)
        return compiled(function)(*(_steady(argument) for argument in arguments), **options)

    return choose


def _first_tensor(argument: Any) -> Tensor:  # noqa: ANN401
    return getattr(argument, fields(argument)[0].name) if is_dataclass(argument) else argument


def _steady(argument: Any) -> Any:  # noqa: ANN401
    """Bring an argument into the form that a piece is compiled for: contiguous, of any size."""
    if not isinstance(argument, Tensor):
        return replace(argument, **{name: _steady(part) for name, part in vars(argument).items()})
    # Flat in between: an axis of size 1 may have any stride, and each would be compiled for.
    argument = argument.contiguous().view(-1).view(argument.shape)
    for axis in range(min(2, argument.ndim)):
        if argument.shape[axis] > 1:
            torch._dynamo.maybe_mark_dynamic(argument, axis)
    return argument


def slot_groups(
    table: Float[Tensor, "scene slot value"], count: int, filler: float = 0.0
) -> tuple[Float[Tensor, "scene 1 few padded"], ...]:
    """Cut a table into groups of ``count`` slots, each fit for one call of a piece.

    The last group is filled up with rows of ``filler``.
    """
    slots, values = table.shape[1:]
    table = F.pad(table, (0, -values % _ALIGNED, 0, -slots % count), value=filler)
    return table.unflatten(1, (-1, count)).transpose(0, 1)[:, :, None].contiguous().unbind(0)
