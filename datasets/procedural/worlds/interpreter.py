"""Runs the blocks of the description language: draws values and adds surfaces to a scene."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from datasets.procedural.renderer.textures import Colour, Material, Number, linear
from datasets.procedural.worlds.language import BLOCKS, SHAPES, Block, Statement
from datasets.procedural.worlds.rng import Rng
from datasets.procedural.worlds.scene import QUADRICS, Frame, Lamp, SceneBuilder, Vector, frustum

Values = dict[str, Any]
_SCATTER_GAP = 0.42
"""Least distance of scattered objects, relative to the sum of their sizes."""


def _bind(values: Values, names: Sequence[str], value: Any) -> None:  # noqa: ANN401
    """Give a value to a name, or its parts to several."""
    values.update(zip(names, value if len(names) > 1 else [value], strict=True))


def _scaled(colour: Colour, factor: Number) -> Colour:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor


def _polar(away: Number, angle: Number, height: Number) -> Colour:
    return away * math.cos(angle), away * math.sin(angle), height


_FUNCTIONS: Values = {
    function.__name__.lstrip("_"): function
    for function in (dict, len, max, min, range, round, sum, _scaled, _polar)
} | {name: getattr(math, name) for name in ("cos", "sin", "exp", "pi", "radians", "tau")}
_FUNCTIONS |= {"grid": itertools.product, "linear": linear, "__builtins__": {}}
_DRAWS = "uniform log_uniform normal integer chance pick colour shifted".split()


class Interpreter:
    """Runs blocks: draws their values and adds their surfaces to a scene."""

    def __init__(self, scene: SceneBuilder, rng: Rng, **values: Number) -> None:
        """Set ``values`` that every block sees."""
        self.scene = scene
        self._rng = rng
        self._base = _FUNCTIONS | {name: getattr(rng, name) for name in _DRAWS}
        self._base |= {"material": self.material, "room_left": scene.room_left, **values}
        for statement in BLOCKS[""].statements:
            self._assign(statement, self._base, {})

    def material(self, names: str) -> int:
        """Draw a material from one of several kinds, all alike, and enter it."""
        block = self._resolve(self._rng.pick(names))
        assert block is not None
        values = dict(self._base)
        self._run(block, Frame(), values, {})
        drawn = {f.name: values[f.name] for f in fields(Material) if f.name in values}
        return self.scene.add_material(Material(**drawn, seed=self._rng.integer(0, 999)))

    def place(self, name: str, frame: Frame, given: Values, parent: Values | None = None) -> Values:
        """Run a block in a frame and return its values; none where the scene is full."""
        block = self._resolve(name)
        if block is None:
            return {}
        values = (parent if parent and block.role == "part" else self._base) | given
        self._run(block, frame, values, given)
        return values

    def _resolve(self, name: str) -> Block | None:
        """Follow choices down to a block; none if it needs more slots than the scene has left."""
        block = BLOCKS[name]
        if not self.scene.room_left(*block.needs):
            return None
        if block.role != "choice":
            return block
        options = [o for o in block.options if self.scene.room_left(*BLOCKS[o[1]].needs)]
        return self._resolve(self._rng.weighted(options)) if options else None

    def _run(self, block: Block, frame: Frame, values: Values, given: Values) -> None:
        for statement in block.statements:
            if statement.verb == "=":
                self._assign(statement, values, given)
            elif statement.verb == "include":
                self._run(BLOCKS[str(statement.subject)], frame, values, given)
            else:
                self._repeat(statement, frame, values)

    @staticmethod
    def _assign(statement: Statement, values: Values, given: Values) -> None:
        """Draw values, but for those that the ``with`` of the placing row gives."""
        if not set(statement.names) <= given.keys():
            _bind(values, statement.names, eval(statement.subject, values))
            values.update(given)

    def _repeat(self, statement: Statement, frame: Frame, values: Values) -> None:
        """Run a row as often as its clauses say."""
        top = 0.0
        for value in eval(statement.rounds, values) if statement.rounds else (None,):
            if statement.rounds:
                _bind(values, statement.names, value)
            if statement.stacked:
                values["top"] = top
            if statement.when and not eval(statement.when, values):
                continue
            drawn = {name: eval(code, values) for name, code in statement.clauses.items()}
            turn = drawn.pop("turn", ())
            x, y, z = drawn.pop("at", (0.0, 0.0, 0.0))
            spot = frame.moved(
                (x, y, z + top),
                turn if isinstance(turn, tuple) else (turn,),
                drawn.pop("scale", 1.0),
            )
            height = self._row(statement, spot, values, drawn)
            if statement.stacked:
                top += height
                values["top"] = top

    def _row(self, statement: Statement, spot: Frame, values: Values, drawn: Values) -> Number:
        """Add one shape, place one block or scatter several; returns the block's height."""
        if statement.verb == "scatter":
            self._scatter(str(statement.subject), spot, **drawn)
        elif statement.verb in SHAPES:
            subject = eval(statement.subject, values)
            self._add(statement.verb, subject, spot, drawn)
        else:
            found = self.place(statement.verb, spot, drawn.get("with", {}), values)
            return found.get("height", 0.0)
        return 0.0

    def _add(self, verb: str, subject: Any, spot: Frame, drawn: Values) -> None:  # noqa: ANN401
        """Add a shape; the subject is its material but for lamps (colour) and blend (width)."""
        scene = self.scene
        match verb:
            case "card":
                scene.add_card(spot, drawn["cut"], drawn["half"], subject)
            case "blob":
                core, ring = drawn.get("core", (0, 0, 0)), drawn.get("ring", 0.0)
                scene.add_blob(spot, core, drawn["round"], subject, ring)
            case "limb":
                x, y, z = drawn["to"]
                turn = (math.atan2(y, x), -math.atan2(z, math.hypot(x, y)))
                half = 0.5 * math.hypot(x, y, z)
                middle = spot.moved((x / 2, y / 2, z / 2), turn)
                scene.add_blob(middle, (half, 0, 0), drawn["round"], subject)
            case "lamp":
                scene.lamps.append(Lamp(spot.origin, drawn["round"], subject))
            case "blend":
                scene.blend = subject * spot.scale
            case _:
                quadric = frustum(drawn["taper"]) if verb == "frustum" else QUADRICS[verb]
                scene.add_convex(spot, quadric, drawn["half"], subject)

    def _scatter(self, name: str, frame: Frame, within: Vector, count: int) -> None:
        """Place objects on a surface, apart from each other."""
        taken: list[tuple[Number, Number, Number]] = []
        for _ in range(6 * count):
            size = self._rng.log_uniform(0.45, 1.1)
            x, y = (self._rng.uniform(-half, half) for half in within)
            gaps = (math.hypot(x - u, y - v) / (size + other) for u, v, other in taken)
            if len(taken) < count and all(gap >= _SCATTER_GAP for gap in gaps):
                taken.append((x, y, size))
                turn = (self._rng.uniform(0, math.tau),)
                self.place(name, frame.moved((x, y, 0), turn, size), {})
