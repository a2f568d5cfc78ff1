"""Worlds described as data: a small language and its parser; ``interpreter`` runs it.

The ``.txt`` files beside hold blocks. A block's head names it, and gives the slots (for convex
shapes, cards, blobs) that must be free for it; its statements follow on the indented lines below or
behind a colon, parted by semicolons; a line that is indented further continues the one above::

    object vase 4                                    # a head
      clay = material("smooth stone"); r = 0.1~0.3   # values; a~b is uniform, a~~b log-uniform
      cylinder clay at 0,0,0.2 half r,r,0.2          # a row: shape, material, then clauses
      handle each side in (-1, 1) when chance(0.5)   # a row that places another block

An ``object`` stands for itself; a ``part`` continues the block that places it and sees its values;
a ``choice`` stands for one of several blocks, by weight; a ``material`` draws the values of a
``Material``; a ``scene`` is a whole world. ``include`` runs a part's statements as if they stood in
its place. Expressions are Python's, over what ``Interpreter`` offers.

Clauses: ``at`` a point, ``turn`` by yaw[, pitch, roll], ``scale``; ``with`` values that win over
the block's own; ``each`` name ``in`` values; ``stack`` so many on top of each other, by their
``height`` (``i`` counts, ``top`` is the height so far); ``when`` a condition holds; ``scatter``
takes ``count`` blocks ``within`` half sides. All others are the shapes': see ``Interpreter._add``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

from datasets.procedural.worlds.scene import QUADRICS

_HEAD = re.compile(r"(material|object|part|scene|choice|constants)\b *(\w*)([ \d]*)(?:: *(.*))?")
_ASSIGNMENT = re.compile(r"(\w+(?:, *\w+)*) *=(?!=) *(.+)")
_CLAUSES = "at turn scale with each when stack half taper cut core round ring to within count"
_CLAUSE = re.compile(rf"\s({_CLAUSES.replace(' ', '|')})\s")
SHAPES = {"frustum", "card", "blob", "limb", "lamp", "blend", *QUADRICS}


@dataclass(frozen=True)
class Statement:
    """One line of a block."""

    verb: str
    """'=', a shape, or the name of a block."""
    subject: CodeType | str
    """The value that is assigned, a shape's material, or the block to include or scatter."""
    names: tuple[str, ...]
    """Assigned names, or those that take the values of ``rounds``."""
    clauses: dict[str, CodeType] = field(default_factory=dict)
    rounds: CodeType | None = None
    when: CodeType | None = None
    stacked: bool = False


@dataclass
class Block:
    """One block of a file."""

    role: str
    name: str
    needs: tuple[int, ...]
    """Slots for convex shapes, cards and blobs that must be free, or the block is left out."""
    statements: list[Statement] = field(default_factory=list)
    options: list[tuple[float, str]] = field(default_factory=list)


def _compile(text: str, place: tuple[str, int]) -> CodeType:
    """Compile an expression; a traceback through it names the line of the file."""
    text = re.sub(r"(-?[\d.]+)~~([\d.]+)", r"log_uniform(\1, \2)", text)
    text = re.sub(r"(-?[\d.]+)~(-?[\d.]+)", r"uniform(\1, \2)", text)
    return compile("\n" * (place[1] - 1) + text.strip(), place[0], "eval")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _statement(text: str, place: tuple[str, int]) -> Statement:
    assignment = _ASSIGNMENT.fullmatch(text)
    if assignment:
        return Statement("=", _compile(assignment[2], place), _names(assignment[1]))
    head, *rest = _CLAUSE.split(text)
    verb, _, subject = head.partition(" ")
    clauses = dict(zip(rest[::2], rest[1::2], strict=True))
    if "stack" in clauses:
        clauses["each"] = f"i in range({clauses['stack']})"
    if "with" in clauses:
        clauses["with"] = f"dict({clauses['with']})"
    names, _, clauses["each"] = clauses.get("each", "").partition(" in ")
    code = {name: _compile(clause, place) for name, clause in clauses.items() if clause}
    return Statement(
        verb,
        _compile(subject, place) if verb in SHAPES else subject,
        _names(names),
        rounds=code.pop("each", None),
        when=code.pop("when", None),
        stacked=code.pop("stack", None) is not None,
        clauses=code,
    )


def parse(path: Path) -> dict[str, Block]:
    """Read the blocks of a file."""
    blocks: dict[str, Block] = {}
    block = Block("constants", "", ())
    for number, line in _lines(path):
        head = _HEAD.fullmatch(line)
        if head:
            block = Block(head[1], head[2], tuple(map(int, head[3].split())))
            blocks[block.name], line = block, head[4] or ""
        if not line:
            continue
        if block.role == "choice":
            pairs = (option.split() for option in line.split(","))
            block.options += [(float(weight), name) for weight, name in pairs]
        else:
            parts = (part.strip() for part in line.split(";"))
            block.statements += [_statement(part, (str(path), number)) for part in parts]
    return blocks


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the lines that say something, by number, joined with those that continue them."""
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
    assert not _blocks.keys() & (BLOCKS.keys() | SHAPES), f"{_name}.txt names something twice"
    BLOCKS |= _blocks
