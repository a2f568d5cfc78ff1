"""Settings of earlier versions: files that hold them still load.

A setting is named by its own name or, where others share that, with the group it stood in.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from utils.errors import UserError

_RETIRED: Mapping[str, Collection[object] | None] = {
    "residual.residual": ("none",),
    "residual": None,
    "one_sided": None,
    "own_weight": None,
    "lrate_residual": None,
}
"""By name the values that changed nothing; a file with another value is refused. None: any."""


def without_retired(
    values: Mapping[str, Any], known: Collection[str], source: str
) -> dict[str, Any]:
    """Drop the settings that this version no longer has.

    Args:
        values: Settings by name, groups of them as nested mappings.
        known: Names that this version has.
        source: The file and group, to begin the error message.

    Raises:
        UserError: A retired setting has a value that this version cannot honour.
    """
    kept = {}
    for name, value in values.items():
        if name in known or name not in _RETIRED:
            kept[name] = value
            continue
        rows = value.items() if isinstance(value, Mapping) else [(name, value)]
        for inner, given in rows:
            full = f"{name}.{inner}" if isinstance(value, Mapping) else name
            allowed = _RETIRED.get(full)
            if allowed is not None and given not in allowed:
                raise UserError(
                    f"{source}.{full}={given!r}: this version no longer supports it. Train again "
                    "without it, or use the version that wrote the file."
                )
    return kept
