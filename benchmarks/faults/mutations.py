"""Damage to the content of a file, drawn at random."""

from __future__ import annotations

import copy
import json
import random
import re
from typing import Any

_TOKENS = (
    *(b"nan", b"inf", b"-1e999", b"1e308", b"-0", b"-1", b"0", b"99999999", b"4294967296"),
    *(b"{", b"[", b'"', b"\xff\xfe", b"\xc3", b"9" * 5000, b"[" * 2000, b"\0", b"\n", b"../", b""),
)
_VALUES = (
    *(None, True, -1, 0, 1e308, float("nan"), float("inf"), 10**9, 10**30, "", "x", "../x"),
    *("\ud800", "x" * 5000, [], [[]], {}, {"a": None}, [1, "2"], [0] * 40),
)
_NUMBER = re.compile(rb"\d+")
_LONGEST = 12


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Return the content of a file with one to three kinds of damage, or noise in its place."""
    if draw.random() < 0.05:
        return draw.randbytes(draw.randrange(200))
    if content[:1] == b"{" and draw.random() < 0.6:
        return _damaged_json(content, draw)
    for _ in range(draw.randint(1, 3)):
        content = draw.choice((_spliced, _spliced, _flipped, _renumbered, _repeated))(content, draw)
    return content[: draw.randint(0, len(content))] if draw.random() < 0.15 else content


def _spliced(content: bytes, draw: random.Random) -> bytes:
    start = draw.randint(0, len(content))
    end = min(len(content), start + draw.randint(0, _LONGEST))
    piece = draw.choice(_TOKENS) if draw.random() < 0.5 else draw.randbytes(draw.randint(0, 9))
    return content[:start] + piece + content[end:]


def _flipped(content: bytes, draw: random.Random) -> bytes:
    if not content:
        return content
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def _renumbered(content: bytes, draw: random.Random) -> bytes:
    numbers = list(_NUMBER.finditer(content[: 1 << 14]))
    if not numbers:
        return _spliced(content, draw)
    number = draw.choice(numbers)
    return content[: number.start()] + draw.choice(_TOKENS) + content[number.end() :]


def _repeated(content: bytes, draw: random.Random) -> bytes:
    start, end = sorted(draw.randint(0, len(content)) for _ in range(2))
    return content[:end] + content[start:end] * draw.randint(0, 2) + content[end:]


def _damaged_json(content: bytes, draw: random.Random) -> bytes:
    """Put something else in place of some values of a JSON object."""
    tree = json.loads(content)
    for _ in range(draw.randint(1, 2)):
        places = list(_places(tree))
        holder, key = draw.choice(places) if places else (tree, "frames")
        if isinstance(holder, dict) and draw.random() < 0.2:
            holder.pop(key, None)
        else:
            holder[key] = copy.deepcopy(draw.choice(_VALUES))
    return json.dumps(tree).encode("utf-8")


def _places(tree: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    """List the containers of a tree with each of their keys."""
    found, waiting = [], [tree]
    while waiting:
        part = waiting.pop()
        keys = list(part) if isinstance(part, dict) else range(len(part))
        found += [(part, key) for key in keys]
        waiting += [part[key] for key in keys if isinstance(part[key], dict | list)]
    return found
