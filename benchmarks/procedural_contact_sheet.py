"""Picture of 24 procedural scenes with their depth: python -m benchmarks.procedural_contact_sheet.

Writes asset/procedural_scenes.jpg (another file: --out), or shows the views of fewer scenes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralBatch, ProceduralGenerator

COLUMNS = 6


def picture(batch: ProceduralBatch) -> Float[Tensor, "tile 3 height width"]:
    """Put every image above its depth; near is bright, no surface is black."""
    images, depths = batch.views.images.flatten(0, 1), batch.views.depths
    near, far = batch.near_far[:, :, None, None, None].log().unbind(1)
    nearness = 1 - (depths.clamp_min(1e-3).log() - near) / (far - near)
    nearness = torch.where(depths > 0, nearness, 0.0).clamp(0, 1).flatten(0, 1)
    coloured = mpl.colormaps["magma"](nearness.cpu().numpy())[..., :3]
    maps = torch.from_numpy(coloured).to(images).permute(0, 3, 1, 2)
    return torch.cat([images, maps], -2)


def main() -> None:
    """Render and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="asset/procedural_scenes.jpg")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 240))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--textures", default=None, help="folder of photographs")
    arguments = parser.parse_args()
    config = ProceduralConfig(seed=arguments.seed, texture_folder=arguments.textures)
    generator = ProceduralGenerator(config, arguments.device)
    ids = range(arguments.first, arguments.first + arguments.scenes)
    tiles = picture(generator.sample(ids, arguments.views, tuple(arguments.size), 0.6)).cpu()
    rows = [torch.cat(list(row), -1) for row in tiles.split(COLUMNS) if len(row) == COLUMNS]
    sheet = (torch.cat(rows, -2).permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(arguments.out, quality=88)
    print(f"wrote {arguments.out}: {sheet.shape[1]}x{sheet.shape[0]}")


if __name__ == "__main__":
    main()
