"""Windows: rectangles of a target image, divided into square bundles of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from einops import rearrange
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from utils.cameras import pixel_grid


@dataclass(frozen=True)
class Window:
    """A rectangle of each target image, in bundles of ``side`` by ``side`` pixels."""

    corners: Int[Tensor, "batch 2"]
    """Column and row of the first pixel."""
    shape: tuple[int, int]
    """Rows and columns of bundles."""
    side: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.shape[0] * self.side, self.shape[1] * self.side

    def centers(self) -> Float[Tensor, "batch bundle 2"]:
        """Return the middle of each bundle as a pixel position, row by row."""
        cells = pixel_grid(*self.shape, self.corners.device) * self.side
        return self.corners[:, None] + cells

    def pixels(self) -> Float[Tensor, "batch bundle pixel 2"]:
        """Return the centres of each bundle's pixels, row by row."""
        inner = pixel_grid(self.side, self.side, self.corners.device) - self.side / 2
        return self.centers()[:, :, None] + inner

    def to_map(
        self, values: Float[Tensor, "batch bundle channel"]
    ) -> Float[Tensor, "batch channel row column"]:
        """Arrange what each bundle has as a map."""
        return rearrange(values, "b (h w) c -> b c h w", h=self.shape[0])

    def to_image(
        self, values: Float[Tensor, "batch bundle values"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Arrange what the pixels of each bundle have, pixel by pixel, as an image."""
        parts = rearrange(values, "b n (p c) -> b n (c p)", p=self.side**2)
        return F.pixel_shuffle(self.to_map(parts), self.side)

    def to_bundles(
        self, images: Shaped[Tensor, "batch channel height width"]
    ) -> Shaped[Tensor, "batch bundle values"]:
        """Return what the pixels of each bundle have, pixel by pixel: undoes ``to_image``."""
        side = self.side
        return rearrange(images, "b c (h y) (w x) -> b (h w) (y x c)", y=side, x=side)

    def cut(
        self, images: Shaped[Tensor, "batch channel full_height full_width"]
    ) -> Shaped[Tensor, "batch channel height width"]:
        """Return the windows of images that they lie in."""
        columns, rows = self.corners.unbind(-1)
        down = torch.arange(self.size[0], device=rows.device) + rows[:, None]
        across = torch.arange(self.size[1], device=rows.device) + columns[:, None]
        batch = torch.arange(len(images), device=rows.device)[:, None, None]
        picked = images.movedim(1, -1)[batch, down[:, :, None], across[:, None]]
        return picked.movedim(-1, 1)


def whole_window(size: tuple[int, int], side: int, batch: int, device: torch.device) -> Window:
    """Return the window that covers images of a height and width; the last bundles may exceed."""
    corners = torch.zeros(batch, 2, dtype=torch.long, device=device)
    return Window(corners, (-(-size[0] // side), -(-size[1] // side)), side)
