"""A small description language of procedural worlds: parser and interpreter.

The ``.txt`` files in this folder contain blocks. The head of a block has its name, and the numbers
of convex shapes, cards and blobs that must be free for it. Its statements follow on indented lines,
or after a colon, separated by semicolons. A line with deeper indentation continues the previous
one::

    object vase 4                                    # head
      clay = material("smooth stone"); r = 0.1~0.3   # a~b is uniform, a~~b log-uniform
      cylinder clay at 0,0,0.2 half r,r,0.2          # row: shape, material, clauses
      handle each side in (-1, 1) when chance(0.5)   # row that places another block

Blocks: ``object`` has its own values; ``part`` shares the values of the block that places it;
``choice`` selects one of several blocks, by weight; ``material`` draws the values of a
``Material``; ``scene`` is a whole world. ``include`` runs the statements of a part in place.
Expressions are Python's, with the names of ``Interpreter``.

Clauses: ``at`` point; ``turn`` yaw[, pitch, roll]; ``scale``; ``with`` values that override those
of the block; ``each`` name ``in`` values; ``stack`` number of copies on top of each other by their
``height`` (``i`` is the index, ``top`` the height so far); ``when`` condition; ``scatter`` block
``within`` half sides ``count`` number. All others belong to shapes: see ``Interpreter._add``.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import CodeType
from typing import Any

from datasets.procedural.renderer.textures import Material, Number, linear
from datasets.procedural.worlds.scene import QUADRICS, Frame, Lamp, Rng, SceneBuilder, frustum

_HEAD = re.compile(r"(material|object|part|scene|choice|constants)\b *(\w*)([ \d]*)(?:: *(.*))?")
_ASSIGNMENT = re.compile(r"(\w+(?:, *\w+)*) *=(?!=) *(.+)")
_CLAUSES = "at turn scale with each when stack half taper cut core round ring to within count"
_CLAUSE = re.compile(rf"\s({_CLAUSES.replace(' ', '|')})\s")
SHAPES = {"frustum", "card", "blob", "limb", "lamp", "blend", *QUADRICS}


@dataclass(frozen=True)
class Statement:
    """One statement of a block."""

    verb: str
    """'=', a shape, the name of a block, ``include`` or ``scatter``."""
    subject: CodeType | str
    """Assigned value, material of a shape, or block to include or scatter."""
    names: tuple[str, ...]
    """Assigned names, or the loop variables of ``iterable``."""
    clauses: dict[str, CodeType] = field(default_factory=dict)
    iterable: CodeType | None = None
    when: CodeType | None = None
    stacked: bool = False


@dataclass
class Block:
    """One block of a file."""

    kind: str
    name: str
    needs: tuple[int, ...]
    """Numbers of convex shapes, cards and blobs that must be free, or the block is left out."""
    statements: list[Statement] = field(default_factory=list)
    options: list[tuple[float, str]] = field(default_factory=list)


Location = tuple[str, int]
"""File name and line number."""


def _compile(text: str, location: Location) -> CodeType:
    """Compile an expression so that tracebacks name the line of the file."""
    text = re.sub(r"(-?[\d.]+)~~([\d.]+)", r"log_uniform(\1, \2)", text)
    text = re.sub(r"(-?[\d.]+)~(-?[\d.]+)", r"uniform(\1, \2)", text)
    return compile("\n" * (location[1] - 1) + text.strip(), location[0], "eval")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _parse_statement(text: str, location: Location) -> Statement:
    assignment = _ASSIGNMENT.fullmatch(text)
    if assignment:
        return Statement("=", _compile(assignment[2], location), _names(assignment[1]))
    head, *rest = _CLAUSE.split(text)
    verb, _, subject = head.partition(" ")
    clauses = dict(zip(rest[::2], rest[1::2], strict=True))
    if "stack" in clauses:
        clauses["each"] = f"i in range({clauses['stack']})"
    if "with" in clauses:
        clauses["with"] = f"dict({clauses['with']})"
    names, _, clauses["each"] = clauses.get("each", "").partition(" in ")
    code = {name: _compile(clause, location) for name, clause in clauses.items() if clause}
    subject = _compile(subject, location) if verb in SHAPES else subject
    iterable, when, stack = (code.pop(name, None) for name in ("each", "when", "stack"))
    return Statement(verb, subject, _names(names), code, iterable, when, stack is not None)


def parse(path: Path) -> dict[str, Block]:
    """Parse the blocks of a file."""
    blocks: dict[str, Block] = {}
    block = Block("constants", "", ())
    for number, line in _lines(path):
        head = _HEAD.fullmatch(line)
        if head:
            block = Block(head[1], head[2], tuple(map(int, head[3].split())))
            blocks[block.name], line = block, head[4] or ""
        if not line:
            continue
        if block.kind == "choice":
            pairs = (option.split() for option in line.split(","))
            block.options += [(float(weight), name) for weight, name in pairs]
        else:
            parts = (part.strip() for part in line.split(";"))
            block.statements += [_parse_statement(part, (str(path), number)) for part in parts]
    return blocks


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbers and texts of logical lines, without comments."""
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = line.partition("#")[0].rstrip()
        if line.startswith("    "):
            lines[-1] = (lines[-1][0], f"{lines[-1][1]} {line.strip()}")
        elif line:
            lines.append((number, line))
    return lines


BLOCKS: dict[str, Block] = {}
for _name in ("materials", "objects", "furniture", "scenes"):
    _blocks = parse(Path(__file__).parent / f"{_name}.txt")
    assert not _blocks.keys() & (BLOCKS.keys() | SHAPES), f"{_name}.txt redefines a name"
    BLOCKS |= _blocks


Values = dict[str, Any]
_SCATTER_GAP = 0.42
"""Minimum distance of scattered objects, relative to the sum of their sizes."""


def _bind(values: Values, names: Sequence[str], value: Any) -> None:  # noqa: ANN401
    """Assign a value to one name, or unpack it to several."""
    values.update(zip(names, value if len(names) > 1 else [value], strict=True))


_FUNCTIONS: Values = {
    "scaled": lambda colour, factor: tuple(channel * factor for channel in colour),
    "polar": lambda away, angle, z: (away * math.cos(angle), away * math.sin(angle), z),
    "grid": itertools.product,
    "linear": linear,
    "__builtins__": {},
}
_FUNCTIONS |= {kind.__name__: kind for kind in (dict, len, max, min, range, round, sum)}
_FUNCTIONS |= {name: getattr(math, name) for name in "cos sin exp pi radians tau".split()}
_DRAWS = "uniform log_uniform normal integer chance pick colour shifted".split()


class Interpreter:
    """Runs blocks: draws their values and adds their surfaces to a scene."""

    def __init__(self, scene: SceneBuilder, rng: Rng, **values: Number) -> None:
        """Make ``values`` visible to all blocks."""
        self.scene, self._rng = scene, rng
        self._base = _FUNCTIONS | {name: getattr(rng, name) for name in _DRAWS}
        self._base |= {"material": self.material, "room_left": scene.room_left, **values}
        for statement in BLOCKS[""].statements:
            self._assign(statement, self._base, {})

    def material(self, names: str) -> int:
        """Draw a material of one of several kinds, with equal probability, and add it."""
        block = self._resolve(self._rng.pick(names))
        assert block is not None
        values = dict(self._base)
        self._run(block, Frame(), values, {})
        drawn = {f.name: values[f.name] for f in fields(Material) if f.name in values}
        return self.scene.add_material(Material(**drawn, seed=self._rng.integer(0, 999)))

    def place(self, name: str, frame: Frame, given: Values, parent: Values | None = None) -> Values:
        """Run a block in a frame and return its values; none if the scene is full."""
        block = self._resolve(name)
        if block is None:
            return {}
        values = (parent if parent and block.kind == "part" else self._base) | given
        self._run(block, frame, values, given)
        return values

    def _resolve(self, name: str) -> Block | None:
        """Resolve choices to a block; None if it needs more slots than are free."""
        block = BLOCKS[name]
        if not self.scene.room_left(*block.needs):
            return None
        if block.kind != "choice":
            return block
        options = [
            (weight, option)
            for weight, option in block.options
            if self.scene.room_left(*BLOCKS[option].needs)
        ]
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
        """Draw values, except those given by the ``with`` clause of the placing row."""
        if not set(statement.names) <= given.keys():
            _bind(values, statement.names, eval(statement.subject, values))
            values.update(given)

    def _repeat(self, statement: Statement, frame: Frame, values: Values) -> None:
        """Run a row for each value of its ``each`` or ``stack`` clause."""
        top = 0.0
        for value in eval(statement.iterable, values) if statement.iterable else (None,):
            if statement.iterable:
                _bind(values, statement.names, value)
            if statement.stacked:
                values["top"] = top
            if statement.when and not eval(statement.when, values):
                continue
            drawn = {name: eval(code, values) for name, code in statement.clauses.items()}
            turn, (x, y, z) = drawn.pop("turn", ()), drawn.pop("at", (0.0, 0.0, 0.0))
            turn = turn if isinstance(turn, tuple) else (turn,)
            local = frame.moved((x, y, z + top), turn, drawn.pop("scale", 1.0))
            height = self._run_row(statement, local, values, drawn)
            if statement.stacked:
                top += height
                values["top"] = top

    def _run_row(self, statement: Statement, frame: Frame, values: Values, drawn: Values) -> Number:
        """Add a shape, place a block or scatter blocks; return the height of a block."""
        verb, subject = statement.verb, statement.subject
        if verb == "scatter":
            self._scatter(str(subject), frame, **drawn)
        elif verb in SHAPES:
            self._add(verb, eval(subject, values), frame, drawn)
        else:
            return self.place(verb, frame, drawn.get("with", {}), values).get("height", 0.0)
        return 0.0

    def _add(self, verb: str, subject: Any, frame: Frame, drawn: Values) -> None:  # noqa: ANN401
        """Add a shape of material ``subject``: for ``lamp`` a colour, for ``blend`` a width."""
        scene = self.scene
        match verb:
            case "card":
                scene.add_card(frame, drawn["cut"], drawn["half"], subject)
            case "blob":
                core, ring = drawn.get("core", (0, 0, 0)), drawn.get("ring", 0.0)
                scene.add_blob(frame, core, drawn["round"], subject, ring)
            case "limb":
                x, y, z = drawn["to"]
                turn = (math.atan2(y, x), -math.atan2(z, math.hypot(x, y)))
                half = 0.5 * math.hypot(x, y, z)
                middle = frame.moved((x / 2, y / 2, z / 2), turn)
                scene.add_blob(middle, (half, 0, 0), drawn["round"], subject)
            case "lamp":
                scene.lamps.append(Lamp(frame.origin, drawn["round"], subject))
            case "blend":
                scene.blend = subject * frame.scale
            case _:
                quadric = frustum(drawn["taper"]) if verb == "frustum" else QUADRICS[verb]
                scene.add_convex(frame, quadric, drawn["half"], subject)

    def _scatter(self, name: str, frame: Frame, within: Sequence[Number], count: int) -> None:
        """Place objects on a surface, at a minimum distance from each other."""
        placed: list[tuple[Number, Number, Number]] = []
        for _ in range(6 * count):
            size = self._rng.log_uniform(0.45, 1.1)
            x, y = (self._rng.uniform(-half, half) for half in within)
            gaps = (math.hypot(x - u, y - v) / (size + other) for u, v, other in placed)
            if len(placed) < count and all(gap >= _SCATTER_GAP for gap in gaps):
                placed.append((x, y, size))
                turn = (self._rng.uniform(0, math.tau),)
                self.place(name, frame.moved((x, y, 0), turn, size), {})
