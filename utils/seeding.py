"""Random numbers as a pure function of (seed, where we are), so that nothing has to be saved.

A run that resumes at step n draws what an uninterrupted run draws at step n, on any rank.
"""

from __future__ import annotations

import torch


def generator_for(device: torch.device | str, *key: int) -> torch.Generator:
    """Return a generator that is seeded by all the integers of ``key``."""
    state = 0x9E3779B97F4A7C15
    for value in key:
        # SplitMix64's mixing: neighbouring keys give unrelated seeds.
        state = (state ^ (value & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        state = (state ^ (state >> 29)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 32
    return torch.Generator(device).manual_seed(state & 0x7FFFFFFFFFFFFFFF)
