"""From a checkpoint and a folder of photographs to a scene that can be rendered."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from apps.rendering.config import FolderFormat, RendererChoice, SceneChoice
from apps.rendering.scene import (
    RenderableScene,
    RenderSettings,
    general_scene,
    is_tuned_scene,
    open_tuned,
)
from datasets.formats.dtu import MILLIMETRES_TO_SCENE, DTUDataset
from datasets.formats.photo_files import PhotoReader
from datasets.formats.registry import ReadOptions, SceneFormat, find_scenes, recognise_format
from datasets.formats.registry import open_scene as read_scene
from datasets.posed_scene import PosedScene
from datasets.procedural import ProceduralConfig, ProceduralGenerator
from evaluation.photographs import split_scan
from evaluation.worlds import posed_world
from models.checkpoint import read_checkpoint
from utils.cameras import LengthUnit
from utils.devices import choose_devices
from utils.errors import UserError

logger = logging.getLogger(__name__)

Size = tuple[int, int]

WORLD_SIZE: Size = (128, 160)
"""Least height and width of a procedural world's photographs, and their narrowest shape."""
_LONGEST_SIDE = 960
"""Photographs are shrunk to this unless frames are to be larger."""
_FINEST: Size = (1 << 14, 1 << 14)
"""Asked for the largest size that there is, readers take the finest photographs of a scene."""


def open_scene(
    choice: SceneChoice, renderer: RendererChoice, frame_size: Size | None = None
) -> RenderableScene:
    """Read a checkpoint and a scene.

    Args:
        choice: The scene.
        renderer: The checkpoint, and how to render.
        frame_size: Photographs are read about as large as the frames will be.

    Raises:
        UserError: Something is missing, malformed or contradictory.
    """
    device = choose_devices(renderer.device)[0]
    settings = RenderSettings(choice.n_views, renderer.chunk, renderer.bf16)
    if is_tuned_scene(renderer.ckpt):
        return _open_tuned(choice, renderer, settings, device)
    checkpoint = read_checkpoint(renderer.ckpt).with_overrides(
        renderer.vggt_path, N_samples=renderer.N_samples
    )
    scene, unit = open_photographs(choice, frame_size, device)
    pool = choice.sources or scene.view_ids
    if absent := [view for view in pool if view not in scene.view_ids]:
        raise UserError(
            f"--sources {absent[0]}: scene {scene.name!r} has no such view; its views are "
            f"{scene.view_ids[0]} to {scene.view_ids[-1]}."
        )
    model = checkpoint.build_model(device)
    if renderer.compile:
        model.compile_rendering()
    return general_scene(model, scene, pool, settings, unit)


def _open_tuned(
    choice: SceneChoice, renderer: RendererChoice, settings: RenderSettings, device: torch.device
) -> RenderableScene:
    """Read a fine-tuned scene, of which the depth range can still be chosen, and nothing else.

    Raises:
        UserError: The file is damaged, or sources were chosen.
    """
    if choice.sources:
        raise UserError(
            "--sources: a fine-tuned scene reads the views that it was trained on; leave it out"
        )
    usual = SceneChoice()
    names = [field.name for field in fields(choice) if field.name != "near_far"]
    unread = [f"--{name}" for name in names if getattr(choice, name) != getattr(usual, name)]
    if unread:
        logger.warning(
            "%s is a fine-tuned scene and brings its own photographs: %s does not count",
            renderer.ckpt,
            ", ".join(unread),
        )
    tuned = open_tuned(renderer.ckpt, settings, renderer.N_samples, device)
    if choice.near_far:
        near, far = _in_scene_unit(choice.near_far, tuned.unit).tolist()
        tuned = tuned.with_sampling(near, far, tuned.n_samples)
    if renderer.compile:
        tuned.model.compile_rendering()
    return tuned


def open_photographs(
    choice: SceneChoice, frame_size: Size | None, device: torch.device | str = "cpu"
) -> tuple[PosedScene, LengthUnit]:
    """Read cameras and, where they are, photographs of the chosen scene.

    Raises:
        UserError: The folder is missing, malformed, or of no known format.
    """
    unit = LengthUnit()
    match _format(choice):
        case "procedural":
            scene = _read_world(choice, frame_size, device)
        case "dtu":
            scene = _read_dtu(choice, frame_size)
            unit = LengthUnit("mm", 1 / MILLIMETRES_TO_SCENE)
        case name:
            folder = _scene_folder(choice, name)
            range_ = (choice.near_far[0], choice.near_far[1]) if choice.near_far else None
            size = _reading_size(_native_size(name, folder, range_), frame_size)
            scene = read_scene(name, folder, ReadOptions(size, range_))
    if choice.near_far:
        scene = replace(scene, near_far=_in_scene_unit(choice.near_far, unit))
    logger.info(
        "%s: %d views of %dx%d", scene.name, len(scene.view_ids), *reversed(scene.image_size)
    )
    return scene, unit


def _in_scene_unit(near_far: tuple[float, ...], unit: LengthUnit) -> Float[Tensor, " 2"]:
    """Take over a range that somebody gave in the unit in which depths are shown to them."""
    return torch.tensor(near_far) / unit.factor


def _format(choice: SceneChoice) -> FolderFormat | Literal["procedural"]:
    if choice.dataset_name != "auto":
        if choice.dataset_name != "procedural" and not choice.datadir:
            raise UserError(f"--dataset_name {choice.dataset_name}: --datadir FOLDER is missing")
        return choice.dataset_name
    if not choice.datadir:
        return "procedural"
    folder = Path(choice.datadir)
    if any((place / "Cameras").is_dir() for place in (folder, folder.parent)):
        return "dtu"
    if name := recognise_format(folder):
        return name
    raise UserError(
        f"{folder}: neither it nor a folder in it is a scene of a known format; give the folder of "
        "a data set with --datadir, and its --dataset_name if it is unusual"
    )


def _read_world(
    choice: SceneChoice, frame_size: Size | None, device: torch.device | str
) -> PosedScene:
    if choice.datadir:
        raise UserError(
            f"--datadir {choice.datadir}: procedural worlds are made, not read; leave it out or "
            "choose another --dataset_name"
        )
    generator = ProceduralGenerator(ProceduralConfig(seed=choice.world_seed), device)
    batch = generator.sample(
        [choice.world], choice.world_views, _world_size(frame_size), choice.world_difficulty
    )
    return posed_world(batch, f"world{choice.world:04d}")


def _world_size(frame_size: Size | None) -> Size:
    """Return a size that covers the frames, and shows enough of the world for a model."""
    height, width = frame_size or WORLD_SIZE
    height = max(height, WORLD_SIZE[0])
    return height, max(width, round(height * WORLD_SIZE[1] / WORLD_SIZE[0]))


def _read_dtu(choice: SceneChoice, frame_size: Size | None) -> PosedScene:
    root, scan = split_scan(Path(choice.datadir))
    if scan and choice.scan and scan != choice.scan:
        raise UserError(f"--datadir {choice.datadir} and --scan {choice.scan} name two scans")
    name = choice.scan or scan
    names = [name] if name else None
    dataset = DTUDataset(root, "test", max_sources=1, scans=names)
    height, width = dataset.image_size
    scale = 1.0
    # Whole halves only: DTU's reader shrinks to nothing else without loss.
    while frame_size and all(
        side * scale / 2 >= wanted and side * scale % 2 == 0
        for side, wanted in zip((height, width), frame_size, strict=True)
    ):
        scale /= 2
    if scale < 1:
        dataset = DTUDataset(root, "test", max_sources=1, scans=names, image_scale=scale)
    return dataset.posed_scene(name or dataset.scan_names[0])


def _scene_folder(choice: SceneChoice, name: SceneFormat) -> Path:
    """Return the chosen scene's folder, or the file that was given instead."""
    folders = find_scenes(name, Path(choice.datadir))
    if not choice.scan:
        return folders[0]
    named = [folder for folder in folders if folder.resolve().name == choice.scan]
    if not named:
        found = ", ".join(folder.name for folder in folders)
        raise UserError(f"--scan {choice.scan}: {choice.datadir} holds {found}")
    return named[0]


def _native_size(name: SceneFormat, folder: Path, range_: tuple[float, float] | None) -> Size:
    """Return the height and width of a scene's first photograph; others may differ from it."""
    # Any range will do for asking how large the images are; estimating one takes long.
    scene = read_scene(name, folder, ReadOptions(_FINEST, range_ or (0.1, 1.0)))
    assert isinstance(scene.read_view, PhotoReader)
    return scene.read_view.photos[0].size


def _reading_size(native: Size, frame_size: Size | None) -> Size:
    """Return the size, in the photographs' own shape, that just covers the frames.

    Reading more would cost time and make fine patterns flicker.
    """
    if frame_size is None:
        scale = _LONGEST_SIDE / max(native)
    else:
        scale = max(frame_size[0] / native[0], frame_size[1] / native[1])
    scale = min(scale, 1.0)
    return max(round(native[0] * scale), 1), max(round(native[1] * scale), 1)
