"""Procedural scenes on disk, in the layout in which users have DTU, numbered from scan1."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from datasets.formats.images.depth_maps import write_pfm
from datasets.procedural.generator import ProceduralGenerator
from datasets.procedural.worlds.camera_paths import DTU_VIEWS
from utils.cameras import Cameras
from utils.errors import UserError
from utils.files import read_json, write_text

_LOG = logging.getLogger(__name__)

MILLIMETRES = 200.0
"""Millimetres per world unit: brings the rig to DTU's 608 mm."""
COMPLETE, PARTIAL = "procedural.json", "procedural.partial.json"
_REMEDY = "Delete the folder or choose another."
"""The marker: written first under the second name, renamed when all is on disk."""
_DEPTH_MIN, _DEPTH_INTERVAL = 425.0, 2.5
_PAIRS = 10


@dataclass(frozen=True)
class DtuSettings:
    """What to write; sizes are height and width."""

    scene_ids: tuple[int, ...]
    size: tuple[int, int] = (128, 160)
    num_views: int = DTU_VIEWS
    lights: tuple[int, ...] = (3,)
    """Light settings, 0 to 6, as they appear in the names of the images."""
    held_out: int = 1
    """So many of the last scenes are listed for validation and test, the others for training."""
    difficulty: float = 0.5


def write_dtu(generator: ProceduralGenerator, folder: Path | str, settings: DtuSettings) -> Path:
    """Write scenes in DTU layout, seen by the fixed rig that all of them share.

    A complete folder of the same settings is left alone; an interrupted one is written anew.
    """
    folder = Path(folder)
    _check(generator.config.rig, settings)
    written = {"generator": asdict(generator.config), "settings": asdict(settings)}
    marker = json.dumps(written, indent=1)
    if _is_complete(folder, marker):
        _LOG.info("%s: already complete, left as it is", folder)
        return folder
    write_text(folder / PARTIAL, marker)
    for number, scene in enumerate(settings.scene_ids, start=1):
        cameras = _write_scene(generator, folder, settings, f"scan{number}_train", scene)
        if number == 1:
            _write_cameras(folder / "Cameras", cameras)
        _LOG.info("%s: %d views of scene %d", folder, settings.num_views, scene)
    names = [f"scan{number}" for number in range(1, len(settings.scene_ids) + 1)]
    kept = max(len(names) - settings.held_out, 1)
    for split, listed in {"train": names[:kept], "val": names[kept:], "test": names[kept:]}.items():
        write_text(folder / "lists" / f"{split}.txt", "\n".join(listed or names) + "\n")
    (folder / PARTIAL).replace(folder / COMPLETE)
    return folder


def _check(rig: str, settings: DtuSettings) -> None:
    (height, width), scenes, views = settings.size, len(settings.scene_ids), settings.num_views
    if rig != "dtu":
        raise UserError(f"rig {rig!r}: the scans of a DTU folder share cameras; choose 'dtu'.")
    if not scenes or not 1 <= views <= DTU_VIEWS:
        raise UserError(f"{scenes} scenes, {views} views: give 1 or more, and 1 to {DTU_VIEWS}.")
    if height % 4 or width % 4 or min(height, width) < 16:
        raise UserError(f"image size {width}x{height}: both sides must be multiples of 4, from 16.")
    if not settings.lights or not set(settings.lights) <= set(range(7)):
        raise UserError(f"lights {settings.lights}: choose from 0 to 6.")


def _is_complete(folder: Path, marker: str) -> bool:
    complete = folder / COMPLETE
    if complete.is_file():
        if read_json(complete, "record of settings", _REMEDY) == json.loads(marker):
            return True
        raise UserError(f"{complete}: is of other settings. {_REMEDY}")
    if (folder / PARTIAL).is_file():
        _LOG.info("%s: was interrupted, writing it anew", folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds files that are not procedural scenes; choose another.")
    return False


def _write_scene(
    generator: ProceduralGenerator, folder: Path, settings: DtuSettings, name: str, scene: int
) -> Cameras:
    """Write the images in every light, and the depth maps; returns the cameras."""
    images, depths = folder / "Rectified" / name, folder / "Depths" / name
    images.mkdir(parents=True, exist_ok=True)
    depths.mkdir(parents=True, exist_ok=True)
    views = None
    for light in settings.lights:
        # Light 3 is DTU's own choice for testing: it is the scene as it was designed.
        what = settings.num_views, settings.size, settings.difficulty, (light + 4) % 7
        views = generator.render(generator.prepare([scene], *what)).views.to("cpu")
        pixels = (views.images[0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
        for view, image in enumerate(pixels, start=1):
            Image.fromarray(image).save(images / f"rect_{view:03d}_{light}_r5000.png")
    assert views is not None
    for view, depth in enumerate((views.depths[0] * MILLIMETRES).numpy()):
        write_pfm(depths / f"depth_map_{view:04d}.pfm", depth.astype(np.float32))
        mask = np.where(depth > 0, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(depths / f"depth_visual_{view:04d}.png")
    return views.cameras[0]


def _write_cameras(folder: Path, cameras: Cameras) -> None:
    """Write camera files at a quarter of the image size, integer pixel centres, as MVSNet has."""
    scaled = Cameras(cameras.intrinsics.double(), cameras.c2w.double()).scaled_world(MILLIMETRES)
    for view, (intrinsics, w2c) in enumerate(zip(scaled.intrinsics, scaled.w2c, strict=True)):
        matrix = intrinsics.clone()
        # The inverse of what the reader does: a quarter pixel is lost when images are halved.
        matrix[:2, 2] -= 0.25
        matrix[:2] /= 4
        text = f"extrinsic\n{_rows(w2c)}\n\nintrinsic\n{_rows(matrix)}\n"
        text += f"\n{_DEPTH_MIN} {_DEPTH_INTERVAL}\n"
        write_text(folder / "train" / f"{view:08d}_cam.txt", text)
    write_text(folder / "pair.txt", _pairs(scaled))


def _rows(matrix: Float[Tensor, "row column"]) -> str:
    return "\n".join(" ".join(f"{value:.9g}" for value in row) for row in matrix.tolist())


def _pairs(cameras: Cameras) -> str:
    """List every view's neighbours, best first; views 5 degrees apart match best (MVSNet)."""
    ahead = cameras.c2w[:, :3, 2]
    degrees = torch.rad2deg((ahead @ ahead.T).clamp(-1, 1).acos())
    width = torch.where(degrees < 5, 1.0, 10.0)
    scores = 1000 * torch.exp(-((degrees - 5) ** 2) / (2 * width**2))
    scores.fill_diagonal_(-1)
    count = min(_PAIRS, len(scores) - 1)
    best, index = torch.sort(scores, dim=-1, descending=True, stable=True)
    text = f"{len(scores)}\n"
    for view in range(len(scores)):
        listed = [f"{index[view, k]} {best[view, k]:.6g}" for k in range(count)]
        text += f"{view}\n{' '.join([str(count), *listed])}\n"
    return text
