"""From light to image: exposure, white balance, lens, tone curve, noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.renderer.noise import hashed

Images = Float[Tensor, "image 3 height width"]


def develop(
    light: Images, sensors: Float[Tensor, "image 7"], seeds: Int[Tensor, " image"]
) -> Images:
    """Turn linear light into images in [0, 1].

    ``sensors``: gain of each channel (exposure times white balance), blur (deviation in pixels),
    noise (deviation of a mid grey), vignette (loss of light in the corners), contrast (slope of the
    tone curve at a mid grey, relative to the natural one).
    """
    gain, blur, noise, vignette, contrast = sensors.split([3, 1, 1, 1, 1], -1)
    light = _blurred(light, blur[:, 0]) * gain[..., None, None]
    light = light * (1 - vignette[..., None, None] * _squared_radius(light))
    image = contrasted(tone_curve(light).clamp(0, 1) ** (1 / 2.2), contrast[..., None, None])
    return (image + noise[..., None, None] * _normal_noise(image, seeds)).clamp(0, 1)


def tone_curve(light: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Compress highlights smoothly; identity for small values (Reinhard et al., 2002, eq. 4)."""
    white = 2.2
    return light * (1 + light / white**2) / (1 + 0.55 * light)


def contrasted(image: Images, slope: Float[Tensor, "image 1 1 1"]) -> Images:
    """Part dark from bright by an S-shaped curve that keeps 0, 1/2 and 1."""
    bright, dark = image**slope, (1 - image) ** slope
    return bright / (bright + dark)


def _blurred(light: Images, sigma: Float[Tensor, " image"]) -> Images:
    """Blur each image with its own 3-tap kernel."""
    side = torch.exp(-0.5 / sigma.clamp_min(0.1) ** 2)[:, None, None, None]
    side, middle = side / (1 + 2 * side), 1 / (1 + 2 * side)
    padded = F.pad(light, (1, 1, 1, 1), mode="replicate")
    wide = side * (padded[..., :-2] + padded[..., 2:]) + middle * padded[..., 1:-1]
    return side * (wide[..., :-2, :] + wide[..., 2:, :]) + middle * wide[..., 1:-1, :]


def _squared_radius(light: Images) -> Float[Tensor, "height width"]:
    y = torch.linspace(-1, 1, light.shape[-2], device=light.device)
    x = torch.linspace(-1, 1, light.shape[-1], device=light.device)
    return 0.5 * (y[:, None] ** 2 + x**2)


def _normal_noise(image: Images, seeds: Int[Tensor, " image"]) -> Images:
    """Noise as a function of image seed, channel and pixel (Box and Muller, 1958)."""
    count, channels, height, width = image.shape
    index = torch.arange(height * width, dtype=torch.int32, device=image.device)
    channel = torch.arange(channels, dtype=torch.int32, device=image.device)[:, None]
    seed = seeds[:, None, None]
    first = hashed(index, channel, seed).clamp_min(1e-6)
    second = hashed(index, channel + 8, seed)
    noise = (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()
    return noise.reshape(count, channels, height, width)
