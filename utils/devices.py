"""Choice of devices and precision, and seeded random generators."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from utils.errors import UserError, first_line

_DEVICE = re.compile(r"[0-9]{1,6}")
_MAX_CPU_PROCESSES = 64


def choose_devices(accelerator: str = "auto", count: int = 1) -> list[torch.device]:
    """Return ``count`` devices; the accelerator is ``gpu``, ``cuda``, ``cpu`` or ``auto``."""
    if _uses_cpu(accelerator):
        if count > _MAX_CPU_PROCESSES:
            raise UserError(
                f"--devices {count}: on the CPU each device is a process; ask for "
                f"{_MAX_CPU_PROCESSES} at most."
            )
        return [torch.device("cpu")] * count
    available = torch.cuda.device_count()
    if count > available:
        fewer = "Ask for no more with --devices, or compute" if available else "Compute"
        raise UserError(
            f"{count} {'GPU is' if count == 1 else 'GPUs are'} asked for, but this machine has "
            f"{available} that PyTorch can use. {fewer} on the CPU with --device cpu."
        )
    return [torch.device("cuda", number) for number in range(count)]


def check_devices(accelerator: str, devices: str) -> None:
    """Raise ``UserError`` for missing devices; ``devices`` is a number, auto or a list like 0,2."""
    if devices in ("auto", "-1"):
        choose_devices(accelerator)
        return
    words = [word.strip() for word in devices.strip(", ").split(",")]
    numbers = [int(word) for word in words if _DEVICE.fullmatch(word)]
    listed = "," in devices
    if len({*numbers}) < len(words) or (numbers == [0] and not listed):
        raise UserError(f"--devices {devices}: give a number from 1, auto, or a list like 0,2.")
    if listed and _uses_cpu(accelerator):
        raise UserError(f"--devices {devices}: a list names GPUs; give a number of processes.")
    choose_devices(accelerator, 1 + max(numbers) if listed else numbers[0])


@contextmanager
def checked_hardware(device: str, devices: str, strategy: str) -> Iterator[None]:
    """Turn Lightning's errors about hardware settings into a ``UserError`` of one line."""
    try:
        yield
    except (MisconfigurationException, ValueError, TypeError, ImportError) as error:
        raise UserError(
            f"--device {device} --devices {devices} --strategy {strategy}: {first_line(error)}"
        ) from error


def _uses_cpu(accelerator: str) -> bool:
    return accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.device_count())


def choose_precision(precision: str, accelerator: str) -> Any:  # noqa: ANN401
    """Return Lightning's precision; ``auto`` is bf16-mixed on a GPU and 32-true elsewhere."""
    if precision != "auto":
        return precision
    on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu else "32-true"


def generator_for(device: torch.device | str, *key: int) -> torch.Generator:
    """Return a generator seeded by all integers of ``key``.

    With the key (seed, step, rank), a resumed run draws the same numbers as an uninterrupted one.
    """
    state = 0x9E3779B97F4A7C15
    for value in key:
        # The mixing of SplitMix64 gives unrelated seeds for neighbouring keys.
        state = (state ^ (value & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 29)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 32
    return torch.Generator(device).manual_seed(state & 0x7FFFFFFFFFFFFFFF)
