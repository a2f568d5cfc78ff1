"""Free memory, the number of rays that fit into it, and advice when it runs out."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from utils.errors import MemoryShortage, is_memory_error

_CGROUP = Path("/sys/fs/cgroup")
_REQUESTED = re.compile(
    r"(?:tried to allocate|unable to allocate) ([\d.]+) ?([KMGT]i?B|bytes)?", re.IGNORECASE
)
_POWERS = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SHARE_FOR_RAYS = 0.5
"""Share of the free memory for rays; the rest is for whole images and other programs."""
_MARGIN = 0.8
"""Recommended share of the largest value that would fit."""
_SIDE_MULTIPLE = 8
"""Recommended image sides are multiples of this."""


class MultipleOf(NamedTuple):
    """A setting whose value must be a multiple of ``divisor``."""

    value: int
    divisor: int


Amount = int | MultipleOf | tuple[int, int]
"""Value of a setting that memory grows with: a number, or height and width."""


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process can still allocate, on the GPU or in main memory."""
    if device.type == "cuda":
        # Memory that PyTorch has cached can be allocated too.
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min([psutil.virtual_memory().available, *_free_within_limits()])


def _free_within_limits() -> Iterator[int]:
    """Yield the bytes left by the limit of the container and by that of the process."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        yield max(limit - int((_CGROUP / "memory.current").read_text()), 0)
    except (OSError, ValueError):
        # Without a limit, the file is missing or says "max".
        pass
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield max(limit - psutil.Process().memory_info().vms, 0)


def rays_that_fit(device: torch.device, ray_bytes: int, wanted: int) -> int:
    """Return a chunk size for rendering: ``wanted`` if it fits, else a power of two."""
    fit = max(int(free_memory(device) * _SHARE_FOR_RAYS) // ray_bytes, 1)
    # Few different sizes, so that compiled graphs are reused.
    return wanted if fit >= wanted else 1 << (fit.bit_length() - 1)


@contextmanager
def memory_stage(stage: str, device: torch.device, **settings: Amount) -> Iterator[None]:
    """Turn an out-of-memory error into a ``MemoryShortage`` that names the settings to lower.

    ``settings`` are the current values that memory grows with, in the order of advice. A key
    ``a_and_b`` stands for two settings that are lowered together.
    """
    before = _used(device)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_memory_error(error):
            raise
        requested, free = _requested_bytes(str(error)), free_memory(device)
        allocated = max(_used(device) - before, 0)
        share = min((allocated + free) / (allocated + requested), 1.0) if requested else 0.5
        lowered = {name: scaled(amount, share * _MARGIN) for name, amount in settings.items()}
        remedies = {
            name.replace("_and_", " "): (_describe(settings[name]), _describe(amount))
            for name, amount in lowered.items()
            if amount is not None
        }
        needs = f"{requested / 2**30:.3g} GiB more, of which" if requested else "more than the"
        problem = f"{stage} takes {needs} {free / 2**30:.3g} GiB are free"
        raise MemoryShortage(problem, remedies) from error


def scaled(amount: Amount, share: float) -> Amount | None:
    """Scale a number, or the area of a height and width; return None if nothing is left."""
    if isinstance(amount, int):
        return int(amount * share) or None
    if isinstance(amount, MultipleOf):
        return int(amount.value * share) // amount.divisor * amount.divisor or None
    height, width = (
        int(side * math.sqrt(share)) // _SIDE_MULTIPLE * _SIDE_MULTIPLE for side in amount
    )
    return (height, width) if min(height, width) else None


def _describe(amount: Amount) -> str:
    if isinstance(amount, MultipleOf):
        return str(amount.value)
    return str(amount) if isinstance(amount, int) else f"{amount[0]} {amount[1]}"


def _requested_bytes(message: str) -> int:
    """Return the size that an allocator's error message names, or 0."""
    match = _REQUESTED.search(message)
    if not match:
        return 0
    return int(float(match[1]) * 1024 ** _POWERS[(match[2] or "b")[0].lower()])


def _used(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss
