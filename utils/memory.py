"""How much memory there is, how many rays go into it, and what is said when it does not do."""

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
_TRIED = re.compile(
    r"(?:tried to allocate|unable to allocate) ([\d.]+) ?([KMGT]i?B|bytes)?", re.IGNORECASE
)
_POWERS = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SHARE_FOR_RAYS = 0.5
"""Of the free memory, what rays at once may take; the rest is for whole images and other programs.
"""
_MARGIN = 0.8
"""Of what would just do, what is recommended."""
_SIDES = 8
"""Recommended sides of images are multiples of this."""


class Whole(NamedTuple):
    """A number that must be a multiple of another."""

    amount: int
    multiple: int


Amount = int | Whole | tuple[int, int]
"""A number, or height and width."""


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process can still take, of the GPU or of the machine."""
    if device.type == "cuda":
        # What PyTorch keeps for later is free to us.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return min([psutil.virtual_memory().available, *_left_by_limits()])


def _left_by_limits() -> Iterator[int]:
    """Yield what a container's limit leaves, and what the limit of a process does."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        yield max(limit - int((_CGROUP / "memory.current").read_text()), 0)
    except (OSError, ValueError):
        # There is none; then the file says max.
        pass
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield max(limit - psutil.Process().memory_info().vms, 0)


def rays_that_fit(device: torch.device, ray_bytes: int, wanted: int) -> int:
    """Return how many rays to render at once: all that are wanted, or a power of two."""
    fit = max(int(free_memory(device) * _SHARE_FOR_RAYS) // ray_bytes, 1)
    # Of few sizes, so that compiled graphs are used again.
    return wanted if fit >= wanted else 1 << (fit.bit_length() - 1)


@contextmanager
def memory_stage(doing: str, device: torch.device, **lowered: Amount) -> Iterator[None]:
    """Let a job inside that memory does not suffice for end with what to lower, and by how much.

    ``lowered`` are the amounts that its memory grows with, by the settings that choose them, the
    first to lower first; two settings that go together have ``_and_`` between their names.
    """
    before = _used(device)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_memory_error(error):
            raise
        asked, free = _asked(str(error)), free_memory(device)
        grown = max(_used(device) - before, 0)
        share = min((grown + free) / (grown + asked), 1.0) if asked else 0.5
        found = {name: lower(amount, share * _MARGIN) for name, amount in lowered.items()}
        remedies = {
            name.replace("_and_", " "): (_words(lowered[name]), _words(amount))
            for name, amount in found.items()
            if amount is not None
        }
        wanted = f"{asked / 2**30:.3g} GiB more, of which" if asked else "more than the"
        told = f"{doing} takes {wanted} {free / 2**30:.3g} GiB are free"
        raise MemoryShortage(told, remedies) from error


def lower(amount: Amount, share: float) -> Amount | None:
    """Return the share of an amount, of the area for height and width; None if nothing is left."""
    if isinstance(amount, int):
        return int(amount * share) or None
    if isinstance(amount, Whole):
        return int(amount.amount * share) // amount.multiple * amount.multiple or None
    height, width = (int(side * math.sqrt(share)) // _SIDES * _SIDES for side in amount)
    return (height, width) if min(height, width) else None


def _words(amount: Amount) -> str:
    if isinstance(amount, Whole):
        return str(amount.amount)
    return str(amount) if isinstance(amount, int) else f"{amount[0]} {amount[1]}"


def _asked(text: str) -> int:
    """Return the bytes that an allocator says it was asked for; 0 if it does not."""
    found = _TRIED.search(text)
    if not found:
        return 0
    return int(float(found[1]) * 1024 ** _POWERS[(found[2] or "b")[0].lower()])


def _used(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return psutil.Process().memory_info().rss
