"""Rendering of images and depths in chunks of rays, and simulation of the image sensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.renderer import kernels
from datasets.procedural.renderer.geometry import SceneTensors
from datasets.procedural.renderer.patterns import hashed
from datasets.procedural.renderer.shading import lamp_disc, shade
from datasets.procedural.renderer.tracing import trace
from utils.cameras import Cameras, Rays, pixel_rays

_TILE = 32
"""Pixels are rendered in tiles of this side, so that neighbouring rays hit similar surfaces."""
_PIXELS_ON_CPU = 20480
"""Pixels of a chunk on the CPU."""
_WHITE = 2.2
"""Radiance that maps to white."""
Photos = Float[Tensor, "photo texel 3"]


def render_views(
    scenes: SceneTensors,
    cameras: Cameras,
    lamps: Float[Tensor, "scene view lamp 8"],
    seeds: Int[Tensor, "scene view"],
    size: tuple[int, int],
    quality: ProceduralConfig,
    photos: Photos | None = None,
) -> Float[Tensor, "scene view height width 4"]:
    """Render linear radiance and z-depth (0 without a surface)."""
    count, views = cameras.shape
    flat = Cameras(cameras.intrinsics.flatten(0, 1), cameras.c2w.flatten(0, 1))
    lamps, seeds = lamps.flatten(0, 1), seeds.flatten()
    on_host = kernels.on_host(lamps)
    max_pixels = max(quality.rays_per_chunk // (count * views * quality.samples), 1)
    chunks = _pixel_chunks(size, _PIXELS_ON_CPU if on_host else max_pixels, lamps.device)

    @torch.no_grad()
    def render(tensors: SceneTensors, images: slice) -> Float[Tensor, "image pixel 4"]:
        view, rest = (flat[images], lamps[images], seeds[images]), (quality.samples, photos)
        return torch.cat([_render_pixels(tensors, *view, pixels, *rest) for pixels in chunks], 1)

    def render_one(image: int) -> Float[Tensor, "1 pixel 4"]:
        scene = scenes.map(lambda tensor: tensor[image // views : image // views + 1])
        return render(scene, slice(image, image + 1))

    if on_host:
        # Image by image: a chunk then tests only the surfaces in its bounding cone. Chunks are too
        # small for parallel kernels, so that each thread renders an image.
        pixels = torch.cat(_map_in_threads(render_one, count * views))
    else:
        per_view = scenes.map(lambda tensor: tensor.repeat_interleave(views, 0))
        pixels = render(per_view, slice(None))
    column, row = torch.cat(chunks).long().unbind(-1)
    order = torch.argsort(row * size[1] + column)
    return pixels[:, order].reshape(count, views, *size, 4)


def _map_in_threads(task: Callable[[int], Tensor], count: int) -> list[Tensor]:
    """Run tasks in PyTorch's number of threads, each with single-threaded kernels."""
    threads = torch.get_num_threads()
    if threads == 1 or count == 1:
        return [task(index) for index in range(count)]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(task, range(count)))
    finally:
        torch.set_num_threads(threads)


def _pixel_chunks(
    size: tuple[int, int], max_pixels: int, device: torch.device
) -> list[Float[Tensor, "_pixel 2"]]:
    """Split the pixel centres of an image into chunks, tile by tile."""
    height, width = size
    index = torch.arange(height * width, device=device)
    row, column = index // width, index % width
    order = torch.argsort(row // _TILE * width + column // _TILE, stable=True)
    centers = torch.stack([column, row], -1)[order] + 0.5
    return list(centers.tensor_split(math.ceil(len(centers) / max_pixels)))


def _sample_positions(
    pixels: Float[Tensor, "pixel 2"], pixel_hash: Float[Tensor, "scene pixel"], count: int
) -> Float[Tensor, "scene ray 2"]:
    """Return the sample positions of pixels: the centre, then a ring rotated by the hash."""
    angles = torch.arange(count - 1, device=pixels.device) / max(count - 1, 1)
    angles = 2 * math.pi * (angles + pixel_hash[..., None])
    ring = 0.42 * torch.stack([angles.cos(), angles.sin()], -1)
    return (pixels[:, None] + F.pad(ring, (0, 0, 1, 0))).flatten(1, 2)


def _render_pixels(
    scene: SceneTensors,
    cameras: Cameras,
    lamps: Float[Tensor, "scene lamp 8"],
    seeds: Int[Tensor, " scene"],
    pixels: Float[Tensor, "pixel 2"],
    samples: int,
    photos: Photos | None,
) -> Float[Tensor, "scene pixel 4"]:
    """Render one view of each scene at pixel centres."""
    column, row = pixels.to(torch.int32).unbind(-1)
    pixel_hash = hashed(column[None], row[None], seeds[:, None])
    positions = _sample_positions(pixels, pixel_hash, samples)
    rays = pixel_rays(cameras, positions)
    directions = rays.directions.contiguous()
    hits = trace(scene, Rays(rays.origins.contiguous(), directions))
    lamp_samples = lamps, lamp_disc(pixel_hash, samples)
    light = shade(scene, hits, directions, 1 / cameras.intrinsics[:, :1, 0], lamp_samples, photos)
    light = light.clamp(0, 4).unflatten(1, (-1, samples)).mean(2)
    # Depth is that of the centre ray.
    t, slot = hits.t[:, ::samples], hits.slot[:, ::samples]
    depth = torch.where(torch.gather(scene.slot_material, 1, slot) >= 0, t, 0.0)
    return torch.cat([light, depth[..., None]], -1)


Images = Float[Tensor, "image 3 height width"]


def develop(
    light: Images, sensors: Float[Tensor, "image 7"], seeds: Int[Tensor, " image"]
) -> Images:
    """Convert linear radiance to images in [0, 1].

    ``sensors``: gain of each channel (exposure times white balance), blur (standard deviation in
    pixels), noise (standard deviation at mid grey), vignette (loss of light in the corners),
    contrast (slope of the tone curve at mid grey, relative to gamma alone).
    """
    gain, blur, noise, vignette, contrast = sensors.split([3, 1, 1, 1, 1], -1)
    light = _blurred(light, blur[:, 0]) * gain[..., None, None]
    light = light * (1 - vignette[..., None, None] * _squared_radius(light))
    # Compress highlights (Reinhard et al., 2002, eq. 4).
    toned = light * (1 + light / _WHITE**2) / (1 + 0.55 * light)
    image = apply_contrast(toned.clamp(0, 1) ** (1 / 2.2), contrast[..., None, None])
    return (image + noise[..., None, None] * _normal_noise(image, seeds)).clamp(0, 1)


def apply_contrast(image: Images, slope: Float[Tensor, "image 1 1 1"]) -> Images:
    """Apply an S-shaped tone curve with a given slope at 1/2; 0, 1/2 and 1 are fixed points."""
    bright, dark = image**slope, (1 - image) ** slope
    return bright / (bright + dark)


def _blurred(light: Images, sigma: Float[Tensor, " image"]) -> Images:
    """Blur each image with a Gaussian 3-tap kernel."""
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
    """Return Gaussian noise, a function of seed, channel and pixel (Box and Muller, 1958)."""
    count, channels, height, width = image.shape
    index = torch.arange(height * width, dtype=torch.int32, device=image.device)
    channel = torch.arange(channels, dtype=torch.int32, device=image.device)[:, None]
    seed = seeds[:, None, None]
    first = hashed(index, channel, seed).clamp_min(1e-6)
    second = hashed(index, channel + 8, seed)
    noise = (-2 * first.log()).sqrt() * (2 * math.pi * second).cos()
    return noise.reshape(count, channels, height, width)
