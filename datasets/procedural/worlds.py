"""From a scene's number to everything that has to be known before rendering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from datasets.procedural.archetypes import ARCHETYPE_CODE
from datasets.procedural.config import ProceduralConfig
from datasets.procedural.dice import Dice, Number
from datasets.procedural.intersect import dot, hit_cards, hit_convex
from datasets.procedural.layout import World
from datasets.procedural.lighting import light_rows, relit
from datasets.procedural.marching import distance
from datasets.procedural.overrides import made_photo, made_plain
from datasets.procedural.paths import CameraPath, dtu_rig, intrinsics, path_pose
from datasets.procedural.scene import SceneBuilder
from datasets.procedural.sensor import scene_sensor, sensor_row, view_sensor
from datasets.procedural.tables import SceneTables, stack_scenes

_ATTEMPTS = 6
_DTU_FOCAL = 2.26
"""Focal length by image width in DTU's cropped images: 1446 / 640."""


@dataclass(frozen=True)
class PlannedScene:
    """One scene, ready to be rendered: plain arrays."""

    builder: SceneBuilder
    intrinsics: Float[np.ndarray, "view 3 3"]
    c2w: Float[np.ndarray, "view 4 4"]
    lights: list[list[list[Number]]]
    """Per view, per lamp: see ``lighting.light_rows``."""
    sensors: list[list[Number]]
    seeds: list[int]


def plan_scene(
    config: ProceduralConfig,
    scene: int,
    num_views: int,
    size: tuple[int, int],
    difficulty: Number,
    light: int = 0,
) -> PlannedScene:
    """Build a world, stand the cameras in it and set the lamps."""
    dice = Dice(config.seed, scene)
    builder = SceneBuilder(
        limits=(config.max_convex, config.max_cards, config.max_blobs),
        max_materials=config.max_materials,
    )
    # The fixed rig suits the studio alone: elsewhere it would stand in the walls.
    name = "studio" if config.rig == "dtu" else dice.pick(config.archetype_names)
    world = ARCHETYPE_CODE[name](builder, dice.child("world"), difficulty)
    if dice.chance(config.textureless):
        builder.materials = [made_plain(material) for material in builder.materials]
    elif config.texture_folder is not None:
        worn = dice.child("photos")
        builder.materials = [
            made_photo(material, worn) if worn.chance(config.photo_share) else material
            for material in builder.materials
        ]
    if config.rig == "dtu":
        c2w = dtu_rig(range(num_views))
        matrix = _dtu_intrinsics(size)
    else:
        c2w = _stand(world, dice, num_views, difficulty)
        matrix = intrinsics(world.path, size)
    lights, sensors = _pictures(world, dice, num_views, difficulty, light)
    seeds = [_seed(dice.child("pixels", light, view)) for view in range(num_views)]
    return PlannedScene(builder, np.repeat(matrix[None], num_views, 0), c2w, lights, sensors, seeds)


def _dtu_intrinsics(size: tuple[int, int]) -> np.ndarray:
    height, width = size
    focal = _DTU_FOCAL * width
    return np.array([[focal, 0, 0.5 * width], [0, focal, 0.5 * height], [0, 0, 1.0]])


def _seed(dice: Dice) -> int:
    return dice.integer(0, 2**30)


def _pictures(
    world: World, dice: Dice, num_views: int, difficulty: Number, light: int
) -> tuple[list[list[list[Number]]], list[list[Number]]]:
    """Light the scene and choose how each view is exposed."""
    lights = world.scene.lights
    if light:
        setting = dice.child("light", light)
        lights = [relit(lamp, setting, 0.9) for lamp in lights]
    sensor = scene_sensor(dice.child("sensor"))
    rows, sensors = [], []
    for view in range(num_views):
        own = dice.child("picture", view)
        sensors.append(sensor_row(view_sensor(sensor, own, difficulty)))
        changed = [relit(lamp, own, 0.12 * difficulty**2) for lamp in lights]
        rows.append(light_rows(changed, world.path.subject))
    return rows, sensors


def _stand(world: World, dice: Dice, num_views: int, difficulty: Number) -> np.ndarray:
    """Choose a clear place for every camera; crowded ones move towards the path's middle."""
    tables = stack_scenes([world.scene])
    start = dice.child("path")
    offset = (start.uniform(0, 1), start.uniform(0, 1), 0.0)
    poses = np.tile(np.eye(4), (num_views, 1, 1))
    waiting = list(range(num_views))
    for attempt in range(_ATTEMPTS):
        shrink = 1 - attempt / (_ATTEMPTS - 1)
        for view in waiting:
            own = dice.child("camera", view, attempt)
            poses[view] = path_pose(world.path, own, view, offset, shrink)
        clear = has_clear_view(
            tables, torch.from_numpy(poses[waiting]).float(), world.path, difficulty
        )
        waiting = [view for view, fine in zip(waiting, clear.tolist(), strict=True) if not fine]
        if not waiting:
            break
    return poses


@torch.no_grad()
def has_clear_view(
    scene: SceneTables, c2w: Float[Tensor, "view 4 4"], path: CameraPath, difficulty: Number
) -> Bool[Tensor, " view"]:
    """Tell which cameras stand free, inside the world, with little right before the lens."""
    centers = c2w[:, :3, 3]
    tangent = np.tan(0.5 * path.field_of_view)
    steps = torch.linspace(-0.8, 0.8, 5) * tangent
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2)
    local = torch.cat([grid, torch.ones(len(grid), 1)], -1)
    directions = (local @ c2w[:, :3, :3].transpose(1, 2)).reshape(1, -1, 3)
    origins = centers.repeat_interleave(len(grid), 0)[None]
    bodies = hit_convex(scene.convex_affine, scene.convex_quadric, origins, directions).amin(-1)
    sheets = hit_cards(scene.card_affine, scene.card_shape, origins, directions).amin(-1)
    nearest = torch.minimum(bodies, sheets).reshape(len(c2w), -1)
    crowded = (nearest < 0.3 * path.distance).float().mean(1)
    free = distance(scene, centers[None])[0] > 0.12 * path.distance
    low, high = scene.shell_box[0]
    indoors = ((centers > low + 0.1) & (centers < high - 0.1)).all(-1)
    allowed = 0.05 + 0.15 * difficulty
    blocked = nearest[:, len(grid) // 2] < 0.5 * path.distance
    return (crowded <= allowed) & free & indoors & ~blocked & ~_inside_body(scene, centers)


def _inside_body(scene: SceneTables, points: Float[Tensor, "view 3"]) -> Bool[Tensor, " view"]:
    """Tell which points are in (or very near) a convex body."""
    affine, quadric = scene.convex_affine[0], scene.convex_quadric[0]
    local = dot(affine[None, ..., :3], points[:, None, None, :]) + affine[None, ..., 3]
    in_cube = (local.abs() < 1.05).all(-1)
    x, y, z = local.unbind(-1)
    ax, ay, az, b, c = quadric.unbind(-1)
    value = ax * x * x + ay * y * y + (az * z + b) * z + c
    return (in_cube & (value < 0.05)).any(-1)
