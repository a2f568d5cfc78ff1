"""Triton where it is installed, and the choice between a kernel and PyTorch."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:
    # PyTorch for CPUs comes without Triton; the kernels then never run.
    triton: Any = None
    tl: Any = None

logger = logging.getLogger(__name__)

MIN_SIZE, MAX_SIZE = 16, 64
"""Minimum and maximum channels of a layer in a kernel; fewer are padded to the minimum."""


def kernel(function: Callable[..., Any]) -> Any:
    """Decorate a Triton function; its source is compiled at its first call."""
    return kernel_of_sizes()(function)


def kernel_of_sizes(*names: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a Triton function that is compiled once for all values of integer arguments.

    Of other integers Triton compiles variants: for 1, multiples of 16, and the rest.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        # Not a wrapper, such as one that checks types: Triton compiles what it is given.
        function = inspect.unwrap(function)
        return triton.jit(function, do_not_specialize=names) if triton else function

    return decorate


def operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function that starts a kernel, as an operator that ``torch.compile`` accepts."""

    def define(function: Callable[..., Any]) -> Any:
        function = inspect.unwrap(function)
        return torch.library.custom_op(f"vggt_nerf::{name}", function, mutates_args=())

    return define


def use_kernels(tensor: Tensor, *sizes: int) -> bool:
    """Return whether kernels run: on a GPU, without gradients, with ``sizes`` that they support.

    Matrix products in Triton have powers of two, at least ``MIN_SIZE``, of rows and columns. Of
    more than ``MAX_SIZE`` the kernels would not fit into a GPU's registers and shared memory.
    """
    supported = all(MIN_SIZE <= size <= MAX_SIZE and size & (size - 1) == 0 for size in sizes)
    if not supported or not tensor.is_cuda or torch.is_grad_enabled():
        return False
    return kernels_run(tensor.device.index)


@torch.compiler.assume_constant_result
def kernels_run(gpu: int) -> bool:
    """Return whether a kernel can be compiled and run on a GPU; log a warning once if not."""
    return _tried(gpu)


@functools.cache
def _tried(gpu: int) -> bool:
    # The kernels have been tried on NVIDIA's GPUs alone.
    if triton is None or torch.version.cuda is None:
        return False
    try:
        value = torch.zeros(1, device=f"cuda:{gpu}")
        _write_one[(1,)](value)
        return value.item() == 1
    except Exception as error:  # noqa: BLE001 - Triton's compilers and drivers raise many kinds
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        logger.warning("Triton kernels are off, which is slower: %s", reason)
        return False


@kernel
def _write_one(value):
    tl.store(value, 1.0)
