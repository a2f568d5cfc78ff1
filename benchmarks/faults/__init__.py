"""Faults that are injected on purpose, and what comes of them: python -m benchmarks.faults."""
