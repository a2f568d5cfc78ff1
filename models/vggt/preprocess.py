"""Photographs to network input, and where every pixel went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from utils.cameras import crop_intrinsics, resize_intrinsics
from utils.errors import UserError

Mode = Literal["crop", "pad", "resize"]
TARGET_SIDE = 518
PATCH = 14


@dataclass(frozen=True)
class PixelMapping:
    """Where a photograph lies in the network's input: ``network = photo * scale + offset``.

    Pixels are (x, y) in the convention of ``utils.cameras``.
    """

    scale_x: float
    scale_y: float
    offset_x: float = 0.0
    offset_y: float = 0.0

    def forward(self, pixels: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Map the photograph's pixels to the network's."""
        return pixels * pixels.new_tensor(self._scale) + pixels.new_tensor(self._offset)

    def inverse(self, pixels: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Map the network's pixels to the photograph's."""
        return (pixels - pixels.new_tensor(self._offset)) / pixels.new_tensor(self._scale)

    def intrinsics(self, intrinsics: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
        """Return the photograph's intrinsics in the network's pixels."""
        resized = resize_intrinsics(intrinsics, *self._scale)
        return crop_intrinsics(resized, -self.offset_x, -self.offset_y)

    def shifted(self, x: int, y: int) -> PixelMapping:
        """Return the mapping after padding by (x, y) on the left and top; negative is a crop."""
        return PixelMapping(self.scale_x, self.scale_y, self.offset_x + x, self.offset_y + y)

    @property
    def _scale(self) -> tuple[float, float]:
        return self.scale_x, self.scale_y

    @property
    def _offset(self) -> tuple[float, float]:
        return self.offset_x, self.offset_y


@dataclass(frozen=True)
class NetworkInput:
    """Photographs ready for the network."""

    images: Float[Tensor, "view 3 height width"]
    """RGB in [0, 1]."""
    mappings: tuple[PixelMapping, ...]
    """One per view."""


def network_size(height: int, width: int, long_side: int, patch: int) -> tuple[int, int]:
    """Return the (height, width) at which the network sees the whole of a picture.

    The long side becomes ``long_side``, the other the multiple of the patch that is nearest to
    keeping the aspect ratio. It may change by half a patch; that is what the two scales of
    ``PixelMapping`` are for.

    Raises:
        ValueError: ``long_side`` is not a positive multiple of the patch.
    """
    check_long_side("long side", long_side, patch)
    short_patches = round(min(height, width) * long_side / max(height, width) / patch)
    short_side = patch * max(1, short_patches)
    return (short_side, long_side) if width >= height else (long_side, short_side)


def check_long_side(name: str, long_side: int, patch: int) -> None:
    """Refuse a size that the network's patches do not fill.

    Args:
        name: The setting, for the error message.
        long_side: Its value in pixels.
        patch: Side of the network's patch.

    Raises:
        ValueError: It is not a positive multiple of the patch; names the nearest that are.
    """
    if long_side > 0 and long_side % patch == 0:
        return
    below = max(1, long_side // patch) * patch
    raise ValueError(
        f"{name}={long_side} must be a positive multiple of the patch {patch}, for example {below} "
        f"or {below + patch}"
    )


def load_and_preprocess(
    paths: Sequence[str | Path], mode: Mode = "crop", side: int = TARGET_SIDE, patch: int = PATCH
) -> NetworkInput:
    """Read photographs for the network.

    Args:
        paths: Image files, the frame of reference first.
        mode: ``crop`` sets the width and cuts the height to a square where it exceeds one;
            ``pad`` sets the longer side and fills up to a square with white: both exactly as
            published. ``resize`` sets the longer side and keeps the whole picture.
        side: What the width or longer side becomes, a multiple of the patch.
        patch: Side of the network's patch.

    Pictures of different shapes are padded with white to the largest, around their centres.

    Raises:
        UserError: There is no image, or one cannot be read.
    """
    if not paths:
        raise UserError("no images to load: give at least one file")
    prepared = [_prepare(_read_image(Path(path)), mode, side, patch) for path in paths]
    height = max(image.shape[-2] for image, _ in prepared)
    width = max(image.shape[-1] for image, _ in prepared)
    padded = [_pad(image, mapping, (height, width)) for image, mapping in prepared]
    images = torch.stack([image for image, _ in padded])
    return NetworkInput(images, tuple(mapping for _, mapping in padded))


def _read_image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as file:
            if file.mode == "RGBA":
                white = Image.new("RGBA", file.size, (255, 255, 255, 255))
                return Image.alpha_composite(white, file).convert("RGB")
            return file.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: no such image file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable image ({error})") from error


def _prepare(image: Image.Image, mode: Mode, side: int, patch: int) -> tuple[Tensor, PixelMapping]:
    new_width, new_height = _target_size(image.width, image.height, mode, side, patch)
    resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
    tensor = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    mapping = PixelMapping(new_width / image.width, new_height / image.height)
    if mode == "crop" and new_height > side:
        top = (new_height - side) // 2
        return tensor[:, top : top + side], mapping.shifted(0, -top)
    return _pad(tensor, mapping, (side, side)) if mode == "pad" else (tensor, mapping)


def _target_size(width: int, height: int, mode: Mode, side: int, patch: int) -> tuple[int, int]:
    if mode == "resize":
        new_height, new_width = network_size(height, width, side, patch)
        return new_width, new_height
    # The order of operations decides about ties, so it follows the published code.
    if mode == "crop" or width >= height:
        return side, max(1, round(height * (side / width) / patch)) * patch
    return max(1, round(width * (side / height) / patch)) * patch, side


def _pad(
    image: Float[Tensor, "3 _ _"], mapping: PixelMapping, size: tuple[int, int]
) -> tuple[Float[Tensor, "3 height width"], PixelMapping]:
    spare_y, spare_x = size[0] - image.shape[-2], size[1] - image.shape[-1]
    top, left = spare_y // 2, spare_x // 2
    padded = functional.pad(image, (left, spare_x - left, top, spare_y - top), value=1.0)
    return padded, mapping.shifted(left, top)
