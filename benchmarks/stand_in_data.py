"""Small procedural data at the paths that README.md names, in several layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from apps.reconstruction.poses import write_poses
from datasets.formats.registry import open_scene
from datasets.posed_scene import PosedScene
from datasets.procedural.config import ProceduralConfig
from datasets.procedural.dtu_writer import DtuSettings, write_dtu
from datasets.procedural.generator import ProceduralGenerator
from utils.images import save_image

_SCANS = ("scan2", "scan24", "scan65")
_VIEWS, _SIZE = 9, (96, 128)


def write_stand_ins(root: Path) -> None:
    """Write the folders ``data`` and ``my_photos`` as a reader of README.md would have them."""
    generator = ProceduralGenerator(ProceduralConfig(rig="dtu", samples=1))
    dtu = write_dtu(generator, root / "data/dtu", DtuSettings((0, 1, 2), _SIZE, _VIEWS))
    for number, scan in reversed([*enumerate(_SCANS, start=1)]):
        for path in (*dtu.glob(f"*/scan{number}"), *dtu.glob(f"*/scan{number}_train")):
            path.rename(path.with_name(path.name.replace(f"scan{number}", scan)))
    for split, names in {"train": _SCANS[:2], "val": _SCANS[2:], "test": _SCANS[2:]}.items():
        (dtu / "lists" / f"{split}.txt").write_text("\n".join(names), encoding="utf-8")
    scene = open_scene("dtu", dtu / "scan2")
    for folder in ("data/fox", "data/my_scenes/room"):
        write_poses(scene, None, root / folder)
    _write_llff(scene, root / "data/nerf_llff_data/fern")
    for view in scene.view_ids:
        image = Image.fromarray((scene.read_view(view).image * 255).round().astype(np.uint8))
        (root / "my_photos").mkdir(exist_ok=True)
        image.save(root / "my_photos" / f"{view:02d}.jpg", quality=95)


def _write_llff(scene: PosedScene, folder: Path) -> None:
    rows, (height, width) = [], scene.image_size
    cameras = scene.cameras
    for view, (c2w, k) in enumerate(zip(cameras.c2w, cameras.intrinsics, strict=True)):
        image = torch.from_numpy(scene.read_view(view).image).permute(2, 0, 1)
        save_image(folder / "images" / f"{view:02d}.png", image)
        right, down, forward, center = c2w[:3].T
        size = torch.tensor([height, width, k[0, 0].item()])
        matrix = torch.stack([down, right, -forward, center, size], 1)
        rows.append([*matrix.flatten().tolist(), *scene.near_far.tolist()])
    np.save(folder / "poses_bounds.npy", np.array(rows))
