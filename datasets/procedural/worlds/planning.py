"""From a scene's number to everything that has to be known before rendering."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.renderer.intersection import (
    Rays,
    dot,
    hit_cards,
    hit_convex,
    quadric_value,
)
from datasets.procedural.renderer.materials import Material
from datasets.procedural.renderer.scene_tensors import SceneTensors
from datasets.procedural.renderer.sensor import Sensor
from datasets.procedural.renderer.shading import LAMPS
from datasets.procedural.renderer.sphere_tracing import DistanceField
from datasets.procedural.worlds.camera_paths import CameraPath, dtu_intrinsics, dtu_poses
from datasets.procedural.worlds.interpreter import Interpreter
from datasets.procedural.worlds.rng import Rng
from datasets.procedural.worlds.scene import (
    NO_SURFACE,
    Frame,
    Lamp,
    SceneBuilder,
    Vector,
    stack_scenes,
)

_ATTEMPTS = 6


@dataclass(frozen=True)
class PlannedScene:
    """One scene, ready to be rendered."""

    builder: SceneBuilder
    intrinsics: Float[np.ndarray, "3 3"]
    """Those of all views."""
    c2w: Float[np.ndarray, "view 4 4"]
    lamps: list[list[list[float]]]
    """Per view, per lamp: position, radius, colour, squared distance at which the colour holds."""
    sensors: list[list[float]]
    seeds: list[int]


def plan_scene(
    config: ProceduralConfig,
    scene: int,
    num_views: int,
    size: tuple[int, int],
    difficulty: float,
    light: int = 0,
) -> PlannedScene:
    """Build a world, place the cameras and set the lamps."""
    rng = Rng(config.seed, scene)
    is_dtu = config.rig == "dtu"
    # The fixed rig suits the studio alone: elsewhere it would stand in the walls.
    name = "studio" if is_dtu else rng.pick(config.scene_types)
    builder, path = build_world(name, rng.child("world"), difficulty)
    if rng.chance(config.textureless):
        builder.materials = [
            replace(material, pattern="plain", noise=0.15 * material.noise, bump=0.0)
            for material in builder.materials
        ]
    elif config.texture_folder is not None:
        photos = rng.child("photos")
        builder.materials = [
            _with_photo(material, photos) if photos.chance(config.photo_share) else material
            for material in builder.materials
        ]
    c2w = (
        dtu_poses(num_views)
        if is_dtu
        else _place_cameras(builder, path, rng, num_views, difficulty)
    )
    lamps, sensors = _light_and_expose(builder, path, rng, (num_views, light), difficulty)
    seeds = [rng.child("pixels", light, view).integer(0, 2**30) for view in range(num_views)]
    intrinsics = dtu_intrinsics(size) if is_dtu else path.intrinsics(size)
    return PlannedScene(builder, intrinsics, c2w, lamps, sensors, seeds)


def build_world(name: str, rng: Rng, difficulty: float) -> tuple[SceneBuilder, CameraPath]:
    """Run the description of a scene type."""
    builder = SceneBuilder()
    values = Interpreter(builder, rng, difficulty=difficulty).place(name, Frame(), {})
    floor, walls, ceiling = (values.get(n, NO_SURFACE) for n in ("floor", "walls", "ceiling"))
    builder.shell_box = values["shell_box"]
    builder.shell_materials = [walls, walls, floor, walls, walls, ceiling]
    air = (values.get("clouds", 0.0), values.get("haze", 0.0), 0.0)
    zenith, horizon, ground, ambient = (
        values[n] for n in ("zenith", "horizon", "ground", "ambient")
    )
    builder.backdrop = [zenith, horizon, ground, air, ambient]
    return builder, CameraPath(**_drawn(values, CameraPath))


def _drawn(values: dict[str, Any], kind: type) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(kind) if field.name in values}


def _with_photo(material: Material, rng: Rng) -> Material:
    """Show a photograph in place of a material's pattern."""
    return replace(
        material,
        pattern="photo",
        frequency=rng.log_uniform(0.3, 2.5),
        noise=min(material.noise, 0.1),
        seed=rng.integer(0, 9999),
    )


def _light_and_expose(
    builder: SceneBuilder, path: CameraPath, rng: Rng, choice: tuple[int, int], difficulty: float
) -> tuple[list[list[list[float]]], list[list[float]]]:
    """Light the scene and choose how each view is exposed, as automatic cameras do."""
    (num_views, light), lamps = choice, builder.lamps
    if light:
        setting = rng.child("light", light)
        lamps = [_relit(lamp, setting, 0.9) for lamp in lamps]
    drawn = Interpreter(SceneBuilder(), rng.child("sensor")).place("sensor", Frame(), {})
    sensor, spread = Sensor(**_drawn(drawn, Sensor)), 0.02 + 0.06 * difficulty
    rows, sensors = [], []
    for view in range(num_views):
        own = rng.child("picture", view)
        given = {"level": np.exp(own.normal(spread)), "tint": 0.3 * spread}
        drawn = Interpreter(SceneBuilder(), own).place("exposure", Frame(), given)
        sensors.append(sensor.exposed(*drawn["gain"]).row())
        changed = [_relit(lamp, own, 0.12 * difficulty**2) for lamp in lamps]
        rows.append(_lamp_rows(changed, path.subject))
    return rows, sensors


def _relit(lamp: Lamp, rng: Rng, amount: float) -> Lamp:
    """Vary a lamp's strength."""
    return replace(lamp, colour=np.asarray(lamp.colour) * np.exp(rng.normal(amount)))


def _lamp_rows(lamps: list[Lamp], subject: Vector) -> list[list[float]]:
    """Lay lamps out for the renderer; those that are missing are dark."""
    rows = []
    for lamp in lamps[:LAMPS]:
        squared = float(np.square(np.subtract(lamp.position, subject)).sum())
        rows.append([*map(float, (*lamp.position, lamp.radius, *lamp.colour)), squared])
    return rows + [[0.0, 0.0, 50.0, 1.0, 0.0, 0.0, 0.0, 2500.0]] * (LAMPS - len(rows))


def _place_cameras(
    builder: SceneBuilder, path: CameraPath, rng: Rng, num_views: int, difficulty: float
) -> Float[np.ndarray, "view 4 4"]:
    """Find a clear place for every camera; crowded ones move towards the path's middle."""
    tensors = stack_scenes([builder])
    start = rng.child("path")
    offset = (start.uniform(0, 1), start.uniform(0, 1))
    poses = np.tile(np.eye(4), (num_views, 1, 1))
    waiting = list(range(num_views))
    for attempt in range(_ATTEMPTS):
        shrink = 1 - attempt / (_ATTEMPTS - 1)
        for view in waiting:
            own = rng.child("camera", view, attempt)
            poses[view] = path.pose(own, view, offset, shrink)
        clear = has_clear_view(tensors, torch.from_numpy(poses[waiting]).float(), path, difficulty)
        waiting = [view for view, fine in zip(waiting, clear.tolist(), strict=True) if not fine]
        if not waiting:
            break
    return poses


@torch.no_grad()
def has_clear_view(
    scene: SceneTensors, c2w: Float[Tensor, "view 4 4"], path: CameraPath, difficulty: float
) -> Bool[Tensor, " view"]:
    """Tell which cameras stand free, inside the world, with little right before the lens."""
    centers = c2w[:, :3, 3]
    steps = torch.linspace(-0.8, 0.8, 5) * np.tan(0.5 * path.field_of_view)
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    local = torch.cat([grid, torch.ones(len(grid), 1)], -1)
    directions = (local @ c2w[:, :3, :3].transpose(1, 2)).reshape(1, -1, 3)
    rays = Rays(centers.repeat_interleave(len(grid), 0)[None], directions)
    convex = hit_convex(scene.convex_affine, scene.convex_shape, rays.origins, directions)
    cards = hit_cards(scene.card_affine, scene.card_shape, rays.origins, directions)
    nearest = torch.minimum(convex.amin(-1), cards.amin(-1)).reshape(len(c2w), -1)
    crowded = (nearest < 0.3 * path.distance).float().mean(1)
    free = DistanceField(scene, centers[None])(centers[None])[0] > 0.12 * path.distance
    low, high = scene.shell_box[0]
    inside_world = ((centers > low + 0.1) & (centers < high - 0.1)).all(-1)
    blocked = nearest[:, len(grid) // 2] < 0.5 * path.distance
    allowed = 0.05 + 0.15 * difficulty
    return (crowded <= allowed) & free & inside_world & ~blocked & ~_inside_convex(scene, centers)


def _inside_convex(scene: SceneTensors, points: Float[Tensor, "view 3"]) -> Bool[Tensor, " view"]:
    """Tell which points are in (or very near) a convex shape."""
    affine = scene.convex_affine[0]
    local = dot(affine[None, ..., :3], points[:, None, None, :]) + affine[None, ..., 3]
    in_cube = (local.abs() < 1.05).all(-1)
    return (in_cube & (quadric_value(scene.convex_shape[0], *local.unbind(-1)) < 0.05)).any(-1)
