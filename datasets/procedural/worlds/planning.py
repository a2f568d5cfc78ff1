"""Plans a scene from its number: surfaces, cameras, lamps and image sensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.renderer import geometry
from datasets.procedural.renderer.geometry import SceneTensors
from datasets.procedural.renderer.shading import LAMPS
from datasets.procedural.renderer.sphere_tracing import DistanceField
from datasets.procedural.renderer.textures import Material, Number
from datasets.procedural.worlds.camera_paths import DTU_FIELD_OF_VIEW, CameraPath, dtu_poses
from datasets.procedural.worlds.language import Interpreter
from datasets.procedural.worlds.scene import NO_SURFACE, Frame, Lamp, Rng, SceneBuilder, Vector
from utils.cameras import Cameras

_ATTEMPTS = 6


@dataclass(frozen=True)
class PreparedBatch:
    """Inputs of the renderer as small CPU tensors, which workers send to the training process."""

    scenes: SceneTensors
    cameras: Cameras
    lamps: Float[Tensor, "scene view lamp 8"]
    sensors: Float[Tensor, "scene view 7"]
    seeds: Int[Tensor, "scene view"]
    size: tuple[int, int]


def plan_scene(
    config: ProceduralConfig,
    scene: int,
    num_views: int,
    size: tuple[int, int],
    difficulty: Number,
    light: int = 0,
) -> PreparedBatch:
    """Plan the surfaces, cameras, lamps and sensors of one scene; the scene axis has length 1."""
    rng, is_dtu = Rng(config.seed, scene), config.rig == "dtu"
    # In the other scene types, cameras of the fixed rig would be inside walls.
    name = "studio" if is_dtu else rng.pick(config.scene_types)
    builder, path = build_world(name, rng.child("world"), difficulty)
    builder.materials = _retextured(builder.materials, config, rng)
    tensors = builder.tensors()
    if is_dtu:
        path = replace(path, field_of_view=DTU_FIELD_OF_VIEW, center_shift=(0.0, 0.0))
        c2w = dtu_poses(num_views)
    else:
        c2w = _place_cameras(tensors, path, rng, num_views, difficulty)
    lamps, light_rng = builder.lamps, rng.child("light", light)
    if light:
        lamps = [_with_random_strength(lamp, light_rng, 0.9) for lamp in lamps]
    sensor, rows, sensors = _draw("sensor", rng.child("sensor")), [], []
    for view in range(num_views):
        view_rng = rng.child("picture", view)
        sensors.append(_sensor_row(sensor, view_rng, 0.02 + 0.06 * difficulty))
        spread = 0.12 * difficulty**2
        view_lamps = [_with_random_strength(lamp, view_rng, spread) for lamp in lamps]
        rows.append(_lamp_rows(view_lamps, path.subject))
    seeds = [rng.child("pixels", light, view).integer(0, 2**30) for view in range(num_views)]
    cameras = Cameras(_tensor([path.intrinsics(size)] * num_views), _tensor(c2w))
    numbers = torch.tensor([seeds], dtype=torch.int32)
    return PreparedBatch(tensors, cameras, _tensor(rows), _tensor(sensors), numbers, size)


def _tensor(values: Any) -> Float[Tensor, "1 view ..."]:  # noqa: ANN401
    return torch.from_numpy(np.asarray(values, np.float32))[None]


def build_world(name: str, rng: Rng, difficulty: Number) -> tuple[SceneBuilder, CameraPath]:
    """Build a world of a scene type."""
    builder = SceneBuilder()
    values = Interpreter(builder, rng, difficulty=difficulty).place(name, Frame(), {})
    floor, walls, ceiling = (values.get(n, NO_SURFACE) for n in ("floor", "walls", "ceiling"))
    builder.shell_box = values["shell_box"]
    builder.shell_materials = [walls, walls, floor, walls, walls, ceiling]
    air = (values.get("clouds", 0.0), values.get("haze", 0.0), 0.0)
    zenith, horizon, ground, ambient = (values[n] for n in "zenith horizon ground ambient".split())
    builder.backdrop = [zenith, horizon, ground, air, ambient]
    path = {field.name: values[field.name] for field in fields(CameraPath) if field.name in values}
    return builder, CameraPath(**path)


def _retextured(materials: list[Material], config: ProceduralConfig, rng: Rng) -> list[Material]:
    """Make all materials plain in some worlds; in the others, texture some with photographs."""
    plain, photos = rng.chance(config.textureless), rng.child("photos")
    for number, material in enumerate(materials):
        if plain:
            material = replace(material, pattern="plain", noise=0.15 * material.noise, bump=0.0)
        elif config.texture_folder is not None and photos.chance(config.photo_share):
            frequency, noise = photos.log_uniform(0.3, 2.5), min(material.noise, 0.1)
            photo = {"pattern": "photo", "seed": photos.integer(0, 9999)}
            material = replace(material, frequency=frequency, noise=noise, **photo)
        materials[number] = material
    return materials


def _draw(name: str, rng: Rng, **given: Number) -> dict[str, Any]:
    """Draw the values of a block without surfaces."""
    return Interpreter(SceneBuilder(), rng).place(name, Frame(), given)


def _sensor_row(sensor: dict[str, Any], rng: Rng, spread: Number) -> list[Number]:
    """Return the sensor's row for a view with random exposure and white balance."""
    exposure = _draw("exposure", rng, level=math.exp(rng.normal(spread)), tint=0.3 * spread)
    gain = np.multiply(sensor["gain"], exposure["gain"])
    return [*gain, *(sensor[name] for name in ("blur", "noise", "vignette", "contrast"))]


def _with_random_strength(lamp: Lamp, rng: Rng, spread: Number) -> Lamp:
    return replace(lamp, colour=np.asarray(lamp.colour) * np.exp(rng.normal(spread)))


def _lamp_rows(lamps: list[Lamp], subject: Vector) -> list[list[Number]]:
    """Return the renderer's rows of the lamps, padded with dark ones."""
    rows = []
    for lamp in lamps[:LAMPS]:
        squared = float(np.square(np.subtract(lamp.position, subject)).sum())
        rows.append([*lamp.position, lamp.radius, *lamp.colour, squared])
    return rows + [[0.0, 0.0, 50.0, 1.0, 0.0, 0.0, 0.0, 2500.0]] * (LAMPS - len(rows))


def _place_cameras(
    scene: SceneTensors, path: CameraPath, rng: Rng, num_views: int, difficulty: Number
) -> Float[np.ndarray, "view 4 4"]:
    """Draw camera poses, and redraw obstructed ones nearer to the middle of the path."""
    start = rng.child("path")
    offset = (start.uniform(0, 1), start.uniform(0, 1))
    poses, pending = np.tile(np.eye(4), (num_views, 1, 1)), list(range(num_views))
    for attempt in range(_ATTEMPTS):
        for view in pending:
            view_rng = rng.child("camera", view, attempt)
            poses[view] = path.pose(view_rng, view, offset, 1 - attempt / (_ATTEMPTS - 1))
        clear = has_clear_view(scene, torch.from_numpy(poses[pending]).float(), path, difficulty)
        pending = [view for view, ok in zip(pending, clear.tolist(), strict=True) if not ok]
        if not pending:
            break
    return poses


@torch.no_grad()
def has_clear_view(
    scene: SceneTensors, c2w: Float[Tensor, "view 4 4"], path: CameraPath, difficulty: Number
) -> Bool[Tensor, " view"]:
    """Tell which cameras are in free space inside the world, with few surfaces near the lens."""
    centers = c2w[:, :3, 3]
    steps = torch.linspace(-0.8, 0.8, 5) * np.tan(0.5 * path.field_of_view)
    grid = torch.cartesian_prod(steps, steps)
    local = torch.cat([grid, torch.ones(len(grid), 1)], -1)
    directions = (local @ c2w[:, :3, :3].transpose(1, 2)).reshape(1, -1, 3)
    origins = centers.repeat_interleave(len(grid), 0)[None]
    convex = geometry.hit_convex(scene.convex_affine, scene.convex_shape, origins, directions)
    cards = geometry.hit_cards(scene.card_affine, scene.card_shape, origins, directions)
    nearest = torch.minimum(convex.amin(-1), cards.amin(-1)).reshape(len(c2w), -1)
    crowded = (nearest < 0.3 * path.distance).float().mean(1)
    free = DistanceField(scene, centers[None])(centers[None])[0] > 0.12 * path.distance
    low, high = scene.shell_box[0]
    inside_world = ((centers > low + 0.1) & (centers < high - 0.1)).all(-1)
    blocked = nearest[:, len(grid) // 2] < 0.5 * path.distance
    affine = scene.convex_affine[0]
    local = geometry.dot(affine[None, ..., :3], centers[:, None, None, :]) + affine[None, ..., 3]
    inside = geometry.quadric_value(scene.convex_shape[0], *local.unbind(-1)) < 0.05
    enclosed = (inside & (local.abs() < 1.05).all(-1)).any(-1)
    allowed = 0.05 + 0.15 * difficulty
    return (crowded <= allowed) & free & inside_world & ~blocked & ~enclosed
