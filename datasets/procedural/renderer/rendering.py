"""From worlds and cameras to images: rays in chunks, light, depth and the sensor."""

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
from datasets.procedural.renderer.geometry import Rays, SceneTensors
from datasets.procedural.renderer.patterns import hashed
from datasets.procedural.renderer.shading import lamp_disc, shade
from datasets.procedural.renderer.tracing import trace
from utils.cameras import Cameras, pixel_directions, rotate

_TILE = 32
"""Side of the tiles in whose order pixels are rendered: neighbours see alike."""
_PIXELS_ON_CPU = 20480
"""Pixels that are rendered at once on the CPU."""
_WHITE = 2.2
"""Light that becomes white."""
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
    """Render linear light and z-depth (0 where there is no surface) at (height, width)."""
    count, views = cameras.shape
    flat = Cameras(cameras.intrinsics.flatten(0, 1), cameras.c2w.flatten(0, 1))
    lamps, seeds = lamps.flatten(0, 1), seeds.flatten()
    on_host = kernels.on_host(lamps)
    most = max(quality.rays_per_chunk // (count * views * quality.samples), 1)
    chunks = _pixel_chunks(size, _PIXELS_ON_CPU if on_host else most, lamps.device)

    @torch.no_grad()
    def render(tensors: SceneTensors, images: slice) -> Float[Tensor, "image pixel 4"]:
        view, rest = (flat[images], lamps[images], seeds[images]), (quality.samples, photos)
        return torch.cat([_render_pixels(tensors, *view, few, *rest) for few in chunks], 1)

    def render_one(image: int) -> Float[Tensor, "1 pixel 4"]:
        scene = scenes.map(lambda tensor: tensor[image // views : image // views + 1])
        return render(scene, slice(image, image + 1))

    if on_host:
        # One by one: a tile then tests only the surfaces that it may see. Tiles are too small for
        # parallel kernels, so that each thread takes an image of its own.
        pixels = torch.cat(_map_in_threads(render_one, count * views))
    else:
        every = scenes.map(lambda tensor: tensor.repeat_interleave(views, 0))
        pixels = render(every, slice(None))
    column, row = torch.cat(chunks).long().unbind(-1)
    order = torch.argsort(row * size[1] + column)
    return pixels[:, order].reshape(count, views, *size, 4)


def _map_in_threads(task: Callable[[int], Tensor], count: int) -> list[Tensor]:
    """Run tasks in as many threads as PyTorch may use, with one kernel thread each."""
    threads = torch.get_num_threads()
    if threads == 1 or count == 1:
        return [task(index) for index in range(count)]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(task, range(count)))
    finally:
        torch.set_num_threads(threads)


def _pixel_chunks(
    size: tuple[int, int], most: int, device: torch.device
) -> list[Float[Tensor, "_pixel 2"]]:
    """Cut an image into bundles of at most so many pixel centres, tile by tile."""
    height, width = size
    index = torch.arange(height * width, device=device)
    row, column = index // width, index % width
    order = torch.argsort(row // _TILE * width + column // _TILE, stable=True)
    centers = torch.stack([column, row], -1)[order] + 0.5
    return list(centers.tensor_split(math.ceil(len(centers) / most)))


def _sample_positions(
    pixels: Float[Tensor, "pixel 2"], pixel_hash: Float[Tensor, "scene pixel"], count: int
) -> Float[Tensor, "scene ray 2"]:
    """Place the samples of a pixel: the centre first, then a ring that turns with the hash."""
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
    # Directions have camera-z 1, so that ray parameters are z-depths.
    directions = rotate(pixel_directions(positions, cameras.intrinsics), cameras).contiguous()
    origins = cameras.centers[:, None].expand_as(directions).contiguous()
    hits = trace(scene, Rays(origins, directions))
    lamp_samples = lamps, lamp_disc(pixel_hash, samples)
    light = shade(scene, hits, directions, 1 / cameras.intrinsics[:, :1, 0], lamp_samples, photos)
    light = light.clamp(0, 4).unflatten(1, (-1, samples)).mean(2)
    # The centre ray alone decides on the depth.
    t, slot = hits.t[:, ::samples], hits.slot[:, ::samples]
    depth = torch.where(torch.gather(scene.slot_material, 1, slot) >= 0, t, 0.0)
    return torch.cat([light, depth[..., None]], -1)


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
    # Highlights are compressed smoothly (Reinhard et al., 2002, eq. 4).
    toned = light * (1 + light / _WHITE**2) / (1 + 0.55 * light)
    image = contrasted(toned.clamp(0, 1) ** (1 / 2.2), contrast[..., None, None])
    return (image + noise[..., None, None] * _normal_noise(image, seeds)).clamp(0, 1)


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
