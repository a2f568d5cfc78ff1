"""Small JSON files that this program writes for itself, with a checksum of their content.

A damaged record is recognised even if it is still valid JSON: a wrong number in it would otherwise
be used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.errors import UserError
from utils.files import read_json, write_text

_CHECKSUM = "checksum"


def write_record(path: Path, content: Mapping[str, Any], remedy: str = "") -> None:
    """Write a record atomically; ``remedy`` ends the message of the error if that fails."""
    write_text(path, json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=1), remedy)


def read_record(path: Path, kind: str, remedy: str = "") -> dict[str, Any]:
    """Read a record; ``kind`` names it in error messages, and ``remedy`` ends them."""
    content = read_json(path, kind, remedy)
    if content.pop(_CHECKSUM, None) != _checksum(content):
        problem = f"{path}: the {kind} is damaged, was changed or is of an earlier version."
        raise UserError(f"{problem} {remedy}".rstrip())
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
