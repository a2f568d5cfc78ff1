"""From light to photograph: exposure, white balance, lens, tone curve, noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.dice import Dice, Number
from datasets.procedural.noise import hashed


@dataclass(frozen=True)
class Sensor:
    """How the camera of one view takes its picture."""

    gain: tuple[Number, Number, Number]
    """Exposure times white balance."""
    blur: Number
    """Standard deviation in pixels."""
    noise: Number
    """Standard deviation of a mid grey, on the scale of the image."""
    vignette: Number
    """Loss of light in the corners."""
    contrast: Number
    """Slope of the tone curve at a mid grey, relative to the natural one."""


def scene_sensor(dice: Dice) -> Sensor:
    """Draw the camera that a whole scene is taken with."""
    exposure = dice.log_uniform(0.9, 1.6)
    return Sensor(
        gain=_tinted(dice, exposure, 0.05),
        blur=dice.uniform(0.0, 0.6),
        noise=dice.log_uniform(0.002, 0.015),
        vignette=dice.uniform(0, 0.25) if dice.chance(0.4) else 0.0,
        # Cameras sharpen tones: photographs have about 1.4 times the contrast of light itself.
        contrast=dice.log_uniform(1.0, 2.0),
    )


def view_sensor(sensor: Sensor, dice: Dice, difficulty: Number) -> Sensor:
    """Vary exposure and white balance from view to view, as automatic cameras do."""
    spread = 0.02 + 0.06 * difficulty
    own = _tinted(dice, math.exp(dice.normal(spread)), 0.3 * spread)
    red, green, blue = (a * b for a, b in zip(sensor.gain, own, strict=True))
    return replace(sensor, gain=(red, green, blue))


def _tinted(dice: Dice, exposure: Number, spread: Number) -> tuple[Number, Number, Number]:
    warmth = dice.normal(spread)
    return (
        exposure * math.exp(warmth),
        exposure * math.exp(dice.normal(0.3 * spread)),
        exposure * math.exp(-warmth),
    )


def sensor_row(sensor: Sensor) -> list[Number]:
    """Lay a sensor out as ``develop`` reads it."""
    return [*sensor.gain, sensor.blur, sensor.noise, sensor.vignette, sensor.contrast]


def develop(
    light: Float[Tensor, "image 3 height width"],
    sensors: Float[Tensor, "image 7"],
    seeds: Int[Tensor, " image"],
) -> Float[Tensor, "image 3 height width"]:
    """Turn linear light into images in [0, 1]."""
    gain, blur, noise, vignette, contrast = sensors.split([3, 1, 1, 1, 1], -1)
    light = _blurred(light, blur[:, 0]) * gain[..., None, None]
    light = light * (1 - vignette[..., None, None] * _squared_radius(light))
    image = contrasted(tone_curve(light).clamp(0, 1) ** (1 / 2.2), contrast[..., None, None])
    return (image + noise[..., None, None] * _normal_noise(image, seeds)).clamp(0, 1)


def tone_curve(light: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Compress highlights smoothly; identity for small values (Reinhard et al., 2002, eq. 4)."""
    white = 2.2
    return light * (1 + light / white**2) / (1 + 0.55 * light)


def contrasted(
    image: Float[Tensor, "image 3 height width"], slope: Float[Tensor, "image 1 1 1"]
) -> Float[Tensor, "image 3 height width"]:
    """Part dark from bright by an S-shaped curve that keeps 0, 1/2 and 1."""
    bright, dark = image**slope, (1 - image) ** slope
    return bright / (bright + dark)


def _blurred(
    light: Float[Tensor, "image 3 height width"], sigma: Float[Tensor, " image"]
) -> Float[Tensor, "image 3 height width"]:
    """Blur each image with its own 3-tap kernel."""
    side = torch.exp(-0.5 / sigma.clamp_min(0.1) ** 2)
    weights = torch.stack([side, torch.ones_like(side), side], -1)
    weights = weights / weights.sum(-1, keepdim=True)
    padded = F.pad(light, (1, 1, 1, 1), mode="replicate")
    rows = [w[:, None, None, None] for w in weights.unbind(-1)]
    wide = rows[0] * padded[..., :-2] + rows[1] * padded[..., 1:-1] + rows[2] * padded[..., 2:]
    return rows[0] * wide[..., :-2, :] + rows[1] * wide[..., 1:-1, :] + rows[2] * wide[..., 2:, :]


def _squared_radius(
    light: Float[Tensor, "image 3 height width"],
) -> Float[Tensor, "height width"]:
    y = torch.linspace(-1, 1, light.shape[-2], device=light.device)
    x = torch.linspace(-1, 1, light.shape[-1], device=light.device)
    return 0.5 * (y[:, None] ** 2 + x**2)


def _normal_noise(
    image: Float[Tensor, "image 3 height width"], seeds: Int[Tensor, " image"]
) -> Float[Tensor, "image 3 height width"]:
    """Noise as a function of image seed, channel and pixel (Box and Muller, 1958)."""
    count, channels, height, width = image.shape
    index = torch.arange(height * width, dtype=torch.int32, device=image.device)
    channel = torch.arange(channels, dtype=torch.int32, device=image.device)[:, None]
    seed = seeds[:, None, None]
    first = hashed(index, channel, seed).clamp_min(1e-6)
    second = hashed(index, channel + 8, seed)
    noise = (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()
    return noise.reshape(count, channels, height, width)
