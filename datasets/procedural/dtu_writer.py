"""Writes procedural scenes in DTU's layout, numbered from scan1."""

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
from datasets.view_selection import angle_weights
from utils.cameras import Cameras
from utils.errors import UserError
from utils.files import read_json, write_text

_LOG = logging.getLogger(__name__)

MILLIMETRES = 200.0
"""Millimetres per world unit, which give the rig DTU's distance of 608 mm."""
COMPLETE, PARTIAL = "procedural.json", "procedural.partial.json"
"""Names of the marker file with the settings when all files are written, and before."""
_REMEDY = "Delete the folder or choose another."
_DEPTH_MIN, _DEPTH_INTERVAL = 425.0, 2.5
_NUM_NEIGHBOURS = 10


@dataclass(frozen=True)
class DtuSettings:
    """Scenes, views and light settings to write."""

    scene_ids: tuple[int, ...]
    size: tuple[int, int] = (128, 160)
    """Height and width."""
    num_views: int = DTU_VIEWS
    lights: tuple[int, ...] = (3,)
    """Light settings from 0 to 6, as in the names of the images."""
    held_out: int = 1
    """Number of the last scenes, which are listed for validation and test instead of training."""
    difficulty: float = 0.5


def write_dtu(generator: ProceduralGenerator, folder: Path | str, settings: DtuSettings) -> Path:
    """Write scenes in DTU's layout, with the cameras of one fixed rig.

    A complete folder of the same settings is left unchanged; an incomplete one is written again.
    """
    folder = Path(folder)
    _check(generator.config.rig, settings)
    record = {"generator": asdict(generator.config), "settings": asdict(settings)}
    marker = json.dumps(record, indent=1)
    if _is_complete(folder, marker):
        _LOG.info("%s: already complete, left unchanged", folder)
        return folder
    write_text(folder / PARTIAL, marker)
    for number, scene in enumerate(settings.scene_ids, start=1):
        cameras = _write_scene(generator, folder, settings, f"scan{number}_train", scene)
        if number == 1:
            _write_cameras(folder / "Cameras", cameras)
        _LOG.info("%s: %d views of scene %d", folder, settings.num_views, scene)
    names = [f"scan{number}" for number in range(1, len(settings.scene_ids) + 1)]
    num_train = max(len(names) - settings.held_out, 1)
    train, held_out = names[:num_train], names[num_train:] or names
    for split, listed in {"train": train, "val": held_out, "test": held_out}.items():
        write_text(folder / "lists" / f"{split}.txt", "\n".join(listed) + "\n")
    (folder / PARTIAL).replace(folder / COMPLETE)
    return folder


def _check(rig: str, settings: DtuSettings) -> None:
    (height, width), scenes, views = settings.size, len(settings.scene_ids), settings.num_views
    if rig != "dtu":
        raise UserError(f"rig {rig!r}: the scans of a DTU folder share cameras; choose 'dtu'.")
    if not scenes or not 1 <= views <= DTU_VIEWS:
        raise UserError(f"{scenes} scenes, {views} views: choose 1 or more, and 1 to {DTU_VIEWS}.")
    if height % 4 or width % 4 or min(height, width) < 16:
        raise UserError(f"image size {width}x{height}: both sides must be multiples of 4, from 16.")
    if not settings.lights or not set(settings.lights) <= set(range(7)):
        raise UserError(f"lights {settings.lights}: choose from 0 to 6.")


def _is_complete(folder: Path, marker: str) -> bool:
    complete = folder / COMPLETE
    if complete.is_file():
        if read_json(complete, "record of settings", _REMEDY) == json.loads(marker):
            return True
        raise UserError(f"{complete}: has other settings. {_REMEDY}")
    if (folder / PARTIAL).is_file():
        _LOG.info("%s: is incomplete, writing it again", folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder}: has other files than procedural scenes; choose another.")
    return False


def _write_scene(
    generator: ProceduralGenerator, folder: Path, settings: DtuSettings, name: str, scene: int
) -> Cameras:
    """Write the images of all lights and the depth maps; return the cameras."""
    images, depths = folder / "Rectified" / name, folder / "Depths" / name
    images.mkdir(parents=True, exist_ok=True)
    depths.mkdir(parents=True, exist_ok=True)
    views = None
    for light in settings.lights:
        # Light 3, which DTU's protocol tests, is the unmodified light of the scene.
        request = settings.num_views, settings.size, settings.difficulty, (light + 4) % 7
        views = generator.render(generator.prepare([scene], *request)).views.to("cpu")
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
    """Write MVSNet's camera files: a quarter of the image size, integers at the pixel centres."""
    scaled = Cameras(cameras.intrinsics.double(), cameras.c2w.double()).scaled_world(MILLIMETRES)
    for view, (intrinsics, w2c) in enumerate(zip(scaled.intrinsics, scaled.w2c, strict=True)):
        matrix = intrinsics.clone()
        # Inverse of the reader's conversion.
        matrix[:2, 2] -= 0.25
        matrix[:2] /= 4
        text = f"extrinsic\n{_rows(w2c)}\n\nintrinsic\n{_rows(matrix)}\n"
        text += f"\n{_DEPTH_MIN} {_DEPTH_INTERVAL}\n"
        write_text(folder / "train" / f"{view:08d}_cam.txt", text)
    write_text(folder / "pair.txt", _pairs(scaled))


def _rows(matrix: Float[Tensor, "row column"]) -> str:
    return "\n".join(" ".join(f"{value:.9g}" for value in row) for row in matrix.tolist())


def _pairs(cameras: Cameras) -> str:
    """Return MVSNet's pair list: neighbours ranked by the angle between the optical axes."""
    axes = cameras.c2w[:, :3, 2].numpy()
    scores = 1000 * angle_weights(np.rad2deg(np.arccos((axes @ axes.T).clip(-1, 1))))
    np.fill_diagonal(scores, -1)
    lines = [str(len(scores))]
    for view, row in enumerate(scores):
        neighbours = np.argsort(-row, kind="stable")[: min(_NUM_NEIGHBOURS, len(scores) - 1)]
        ranked = (f"{other} {row[other]:.6g}" for other in neighbours)
        lines += [str(view), " ".join([str(len(neighbours)), *ranked])]
    return "\n".join(lines) + "\n"
