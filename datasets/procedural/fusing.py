"""Kernels of the renderer, each compiled on its own when it first runs on an accelerator.

Compiling the renderer whole takes many minutes: sphere tracing unrolls into tens of thousands of
operations. Its pieces compile in seconds, and what runs between them is small.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def fused(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let a function of tensors be few kernels on an accelerator; on the CPU it stays as it is."""
    compiled = torch.compile(function)

    @functools.wraps(function)
    def choose(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        on_device = any(_on_accelerator(argument) for argument in arguments)
        return (compiled if on_device else function)(*arguments, **options)

    return choose


def _on_accelerator(argument: object) -> bool:
    if is_dataclass(argument):
        argument = getattr(argument, fields(argument)[0].name)
    return isinstance(argument, Tensor) and argument.device.type != "cpu"
