"""Fault injection campaigns: python -m benchmarks.faults."""
