"""Faults that are injected on purpose, and what comes of them: python -m benchmarks.faults."""

from benchmarks.faults.campaigns import main

__all__ = ["main"]
