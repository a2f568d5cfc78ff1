"""Other exposures and white balances of whole scenes: the same for sources and targets."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from datasets.views import Sample, Views


@dataclass(frozen=True)
class ExposureConfig:
    """How far a scene's colours may stray in training; between views they do not."""

    gamma_spread: float = 0.15
    """deviation of the logarithm of the exponent that is put on all intensities"""
    gain_spread: float = 0.1
    """deviation of the logarithm of the factor on all colours"""
    balance_spread: float = 0.05
    """deviation of the logarithm of the further factor on each colour"""

    def __post_init__(self) -> None:
        """Refuse negative spreads."""
        if min(self.gamma_spread, self.gain_spread, self.balance_spread) < 0:
            raise ValueError("gamma_spread, gain_spread and balance_spread must not be negative")


def vary_exposure(sample: Sample, config: ExposureConfig, generator: torch.Generator) -> Sample:
    """Return the sample as if its scenes had been lit and exposed otherwise.

    Args:
        sample: Images in [0, 1]; they stay there.
        config: How far to go.
        generator: On the device of the sample.
    """
    device = sample.near_far.device
    noise = torch.randn(len(sample.near_far), 5, generator=generator, device=device)
    gamma = (config.gamma_spread * noise[:, 0]).exp()[:, None, None, None, None]
    gain = (config.gain_spread * noise[:, 1:2] + config.balance_spread * noise[:, 2:]).exp()
    gain = gain[:, None, :, None, None]

    def exposed(views: Views) -> Views:
        return replace(views, images=(views.images**gamma * gain).clamp(0, 1))

    return replace(sample, sources=exposed(sample.sources), targets=exposed(sample.targets))
