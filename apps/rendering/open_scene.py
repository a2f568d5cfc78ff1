"""From a checkpoint and a folder of photographs to a scene that can be rendered."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace

import torch

from apps.rendering.config import RendererChoice, SceneChoice
from datasets.formats.options import Size
from datasets.formats.registry import find_scenes
from datasets.formats.registry import open_scene as read_scene
from datasets.posed_scene import PosedScene
from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralGenerator
from datasets.procedural.held_out import posed_world
from datasets.protocols import declared_test_views
from models.checkpoints.general import read_model_file
from models.novel_view import NovelViewModel
from models.scenes.photo_cameras import ensure_cameras
from models.scenes.renderable_scene import (
    RenderableScene,
    general_scene,
    is_tuned_scene,
    open_tuned,
)
from models.vggt_nerf import VGGTNeRF
from utils.devices import choose_devices
from utils.errors import UserError

logger = logging.getLogger(__name__)

WORLD_SIZE: Size = (128, 160)
"""Least height and width of a procedural world's photographs, and their narrowest shape."""
_LONGEST_SIDE = 960
"""Photographs are shrunk to this unless frames are to be larger."""


def open_scene(
    choice: SceneChoice, renderer: RendererChoice, frame_size: Size | None = None
) -> RenderableScene:
    """Read a checkpoint, and photographs about as large as the frames will be."""
    device = choose_devices(renderer.device)[0]
    if is_tuned_scene(renderer.ckpt):
        return _open_tuned(choice, renderer, device)
    checkpoint = read_model_file(renderer.ckpt).with_overrides(
        renderer.vggt_path, N_samples=renderer.N_samples
    )
    scene = open_photographs(choice, frame_size, device)
    pool = choice.sources or scene.view_ids
    if absent := [view for view in pool if view not in scene.view_ids]:
        raise UserError(
            f"--sources {absent[0]}: scene {scene.name!r} has no such view; its views are "
            f"{scene.view_ids[0]} to {scene.view_ids[-1]}."
        )
    if tested := set(pool).intersection(declared_test_views(scene)):
        logger.info(
            "%s: %d of %d source views are set apart for tests by its files; nothing is measured "
            "here, so they are read too (--sources chooses others)",
            *(scene.name, len(tested), len(pool)),
        )
    model = checkpoint.build_model(device)
    if renderer.compile:
        compile_model(model)
    rendering = {"chunk": renderer.chunk, "bf16": renderer.bf16}
    return general_scene(model, scene, pool, choice.n_views, **rendering)


def open_photographs(
    choice: SceneChoice, frame_size: Size | None, device: torch.device | str = "cpu"
) -> PosedScene:
    """Read cameras and photographs of the first of the chosen scenes."""
    name = choice.dataset_name
    if name == "procedural" or (name == "auto" and not choice.datadir):
        scene = _read_world(choice, frame_size, device)
    elif not choice.datadir:
        raise UserError(f"--dataset_name {name}: --datadir FOLDER is missing")
    else:
        ensure_cameras(choice, device)
        name, options = choice.format_name, choice.options
        if options.size is None and options.scale == 1:
            # Reading more than covers the frames costs time and makes fine patterns flicker.
            options = replace(options, cover=frame_size, longest_side=_LONGEST_SIDE)
        folders = choice.scene_folders() if choice.scan else find_scenes(name, choice.root)
        scene = read_scene(name, folders[0], options)
    logger.info(
        "%s: %d views of %dx%d", scene.name, len(scene.view_ids), *reversed(scene.image_size)
    )
    return scene


def _open_tuned(
    choice: SceneChoice, renderer: RendererChoice, device: torch.device
) -> RenderableScene:
    """Read a fine-tuned scene, of which the depth range can still be chosen, and nothing else."""
    if choice.sources:
        raise UserError(
            "--sources: a fine-tuned scene reads the views that it was trained on; leave it out"
        )
    given, usual = asdict(choice), asdict(SceneChoice(near_far=choice.near_far))
    if unread := ", ".join(f"--{name}" for name in given if given[name] != usual[name]):
        message = "%s is a fine-tuned scene and brings its own photographs: %s does not count"
        logger.warning(message, renderer.ckpt, unread)
    tuned = open_tuned(renderer.ckpt, device, chunk=renderer.chunk, bf16=renderer.bf16)
    if choice.near_far or renderer.N_samples:
        given = torch.tensor(choice.near_far) / tuned.unit.factor
        near, far = (given if choice.near_far else tuned.near_far).tolist()
        tuned = tuned.with_sampling(near, far, renderer.N_samples or tuned.n_samples)
    if renderer.compile:
        compile_model(tuned.model)
    return tuned


def compile_model(model: NovelViewModel) -> None:
    """Compile what renders."""
    if not isinstance(model, VGGTNeRF):
        raise UserError("--compile: a baseline is not compiled; leave it out")
    model.compile_rendering()


def _read_world(
    choice: SceneChoice, frame_size: Size | None, device: torch.device | str
) -> PosedScene:
    if choice.datadir:
        raise UserError(
            f"--datadir {choice.datadir}: procedural worlds are made, not read; leave it out or "
            "choose another --dataset_name"
        )
    generator = ProceduralGenerator(ProceduralConfig(seed=choice.world_seed), device)
    # It covers the frames, and shows enough of the world for a model.
    height, width = frame_size or WORLD_SIZE
    height = max(height, WORLD_SIZE[0])
    size = choice.size or (height, max(width, round(height * WORLD_SIZE[1] / WORLD_SIZE[0])))
    batch = generator.sample([choice.world], choice.world_views, size, choice.world_difficulty)
    scene = posed_world(batch, f"world{choice.world:04d}")
    return replace(scene, near_far=torch.tensor(choice.near_far)) if choice.near_far else scene
