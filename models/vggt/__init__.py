"""The geometry backbone: ``models.vggt.VGGT.from_pretrained(folder)``.

``VGGT`` is imported on first use, so that the settings in ``models.vggt.config`` need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.vggt.network import VGGT

__all__ = ["VGGT"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name != "VGGT":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from models.vggt.network import VGGT

    return VGGT
