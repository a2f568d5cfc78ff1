"""Writing trained weights as a folder that ``VGGT.from_pretrained`` reads."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from models.vggt.network import VGGT
from utils.errors import UserError

MAX_BYTES = 16 * 2**20


def export_vggt(network: VGGT, folder: str | Path, max_bytes: int | None = MAX_BYTES) -> Path:
    """Write ``config.json`` and ``model.safetensors`` in half precision; return the latter.

    Files are replaced whole, the weights last.

    Raises:
        UserError: The weights do not fit half precision or the size limit, or cannot be written.
    """
    folder = Path(folder)
    weights = {key: _half(key, value) for key, value in network.state_dict().items()}
    content = save(weights, metadata={"format": "pt"})
    if max_bytes is not None and len(content) > max_bytes:
        raise UserError(
            f"{folder}: the weights take {len(content)} bytes, more than the limit of {max_bytes}; "
            "choose a smaller network"
        )
    config = json.dumps(asdict(network.config), indent=2) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "config.json", config.encode())
        _replace(folder / "model.safetensors", content)
    except OSError as error:
        raise UserError(f"{folder}: cannot write the weights ({error.strerror})") from error
    return folder / "model.safetensors"


def _half(key: str, value: Tensor) -> Tensor:
    half = value.detach().to("cpu", torch.float16).contiguous()
    if not half.isfinite().all():
        raise UserError(f"tensor {key} has values that half precision cannot hold; not exported")
    return half


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
