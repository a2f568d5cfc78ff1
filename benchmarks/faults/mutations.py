"""Random damage to the content of a file."""

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
_MAX_CUT = 12


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return the content with one to three kinds of damage, or random bytes instead."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(200))
    if content[:1] == b"{" and rng.random() < 0.6:
        return _damaged_json(content, rng)
    for _ in range(rng.randint(1, 3)):
        content = rng.choice((_spliced, _spliced, _flipped, _renumbered, _repeated))(content, rng)
    return content[: rng.randint(0, len(content))] if rng.random() < 0.15 else content


def _spliced(content: bytes, rng: random.Random) -> bytes:
    start = rng.randint(0, len(content))
    end = min(len(content), start + rng.randint(0, _MAX_CUT))
    piece = rng.choice(_TOKENS) if rng.random() < 0.5 else rng.randbytes(rng.randint(0, 9))
    return content[:start] + piece + content[end:]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return content
    flipped = bytearray(content)
    flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(flipped)


def _renumbered(content: bytes, rng: random.Random) -> bytes:
    numbers = list(_NUMBER.finditer(content[: 1 << 14]))
    if not numbers:
        return _spliced(content, rng)
    number = rng.choice(numbers)
    return content[: number.start()] + rng.choice(_TOKENS) + content[number.end() :]


def _repeated(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randint(0, len(content)) for _ in range(2))
    return content[:end] + content[start:end] * rng.randint(0, 2) + content[end:]


def _damaged_json(content: bytes, rng: random.Random) -> bytes:
    """Replace or remove some values of a JSON object."""
    tree = json.loads(content)
    for _ in range(rng.randint(1, 2)):
        entries = _entries(tree)
        container, key = rng.choice(entries) if entries else (tree, "frames")
        if isinstance(container, dict) and rng.random() < 0.2:
            container.pop(key, None)
        else:
            container[key] = copy.deepcopy(rng.choice(_VALUES))
    return json.dumps(tree).encode("utf-8")


def _entries(tree: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    """List (container, key) of every value in a tree."""
    entries, pending = [], [tree]
    while pending:
        node = pending.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node))
        entries += [(node, key) for key in keys]
        pending += [node[key] for key in keys if isinstance(node[key], dict | list)]
    return entries
