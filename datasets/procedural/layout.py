"""What the kinds of worlds have in common: lenses, baselines, shells, scattered things."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from datasets.procedural.dice import Dice, Number
from datasets.procedural.palette import cloth, one_of
from datasets.procedural.paths import CameraPath
from datasets.procedural.placement import Frame
from datasets.procedural.plants import potted_plant
from datasets.procedural.scene import SceneBuilder
from datasets.procedural.surfaces import masonry, plaster, stone, wallpaper, wood
from datasets.procedural.things import any_small_thing


@dataclass(frozen=True)
class World:
    """A world and how it is looked at."""

    scene: SceneBuilder
    path: CameraPath


def baseline(dice: Dice, difficulty: Number, widest: Number) -> float:
    """Draw how far cameras spread: now and then hardly; ``widest`` only at full difficulty."""
    narrowest = 0.08 if dice.chance(0.15) else 0.35
    return dice.log_uniform(narrowest, 1.0) * widest * (0.4 + 0.6 * difficulty)


def with_lens(path: CameraPath, dice: Dice, degrees: tuple[Number, Number]) -> CameraPath:
    """Draw field of view (from a range), principal point, roll and aim of a path's cameras.

    Cameras that only shift cannot tell a long lens from a deep scene: what a network believes then
    is what it was shown most. Hence ranges around the 65 to 75 degrees of phones, along the wider
    side, wherever no laboratory chose the lens.
    """
    shift = 0.04 if dice.chance(0.3) else 0.01
    return replace(
        path,
        field_of_view=math.radians(dice.uniform(*degrees)),
        center_shift=(dice.normal(shift), dice.normal(shift)),
        roll=dice.uniform(0.0, 0.035),
        # Some hold the subject in the middle, some look around.
        aim=dice.log_uniform(0.015, 0.15),
    )


def scatter(
    scene: SceneBuilder, dice: Dice, place: Frame, reach: tuple[Number, Number], count: int
) -> list[tuple[Number, Number, Number]]:
    """Stand things on a surface, apart from each other; returns their places and sizes."""
    taken: list[tuple[Number, Number, Number]] = []
    for _ in range(6 * count):
        if len(taken) == count or not scene.room_left(convex=12):
            break
        size = dice.log_uniform(0.45, 1.1)
        x, y = dice.uniform(-reach[0], reach[0]), dice.uniform(-reach[1], reach[1])
        if any(math.hypot(x - u, y - v) < 0.42 * (size + s) for u, v, s in taken):
            continue
        taken.append((x, y, size))
        spot = place.moved((x, y, 0), yaw=dice.uniform(0, 6.3), scale=size)
        if dice.chance(0.1) and scene.room_left(cards=20):
            scene.next_object()
            potted_plant(scene, dice, spot)
        else:
            any_small_thing(scene, dice, spot)
    return taken


def indoor_shell(
    scene: SceneBuilder, dice: Dice, half: tuple[Number, Number], height: Number
) -> None:
    """Enclose the world in a room: floor, walls, ceiling."""
    scene.shell_box = ((-half[0], -half[1], 0.0), (half[0], half[1], height))
    floor = scene.add_material(one_of(dice, (wood, wood, masonry, cloth, stone)))
    wall = one_of(dice, (plaster, plaster, wallpaper, masonry))
    walls, ceiling = scene.add_material(wall), scene.add_material(plaster(dice))
    scene.shell_materials = [walls, walls, floor, walls, walls, ceiling]
