"""Open a renderable scene from a checkpoint and a folder of photographs."""

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

_MIN_WORLD_SIZE: Size = (128, 160)
"""Smallest height and width, and smallest aspect ratio, of a procedural world's photographs."""
_MAX_SIDE = 960
"""Photographs are downscaled to this side length unless the frames are larger."""


def open_scene(
    choice: SceneChoice, renderer: RendererChoice, frame_size: Size | None = None
) -> RenderableScene:
    """Read a checkpoint, and photographs at about the size of the frames."""
    device = choose_devices(renderer.device)[0]
    if is_tuned_scene(renderer.ckpt):
        return _open_tuned(choice, renderer, device)
    checkpoint = read_model_file(renderer.ckpt).with_overrides(
        renderer.vggt_path, N_samples=renderer.N_samples
    )
    scene = open_photographs(choice, frame_size, device)
    sources = choice.sources or scene.view_ids
    if absent := [view for view in sources if view not in scene.view_ids]:
        raise UserError(
            f"--sources {absent[0]}: scene {scene.name!r} has no such view; its views are "
            f"{scene.view_ids[0]} to {scene.view_ids[-1]}."
        )
    if test_views := set(sources).intersection(declared_test_views(scene)):
        logger.info(
            "%s: %d of %d source views are declared as test views by the scene's files. They are "
            "used here because nothing is evaluated; --sources chooses others",
            *(scene.name, len(test_views), len(sources)),
        )
    model = checkpoint.build_model(device)
    if renderer.compile:
        compile_model(model)
    return general_scene(
        model, scene, sources, choice.n_views, chunk=renderer.chunk, bf16=renderer.bf16
    )


def open_photographs(
    choice: SceneChoice, frame_size: Size | None, device: torch.device | str = "cpu"
) -> PosedScene:
    """Read the cameras and photographs of the first chosen scene."""
    name = choice.dataset_name
    if name == "procedural" or (name == "auto" and not choice.datadir):
        scene = _read_world(choice, frame_size, device)
    elif not choice.datadir:
        raise UserError(f"--dataset_name {name}: --datadir FOLDER is missing")
    else:
        ensure_cameras(choice, device)
        name, options = choice.format_name, choice.options
        if options.size is None and options.scale == 1:
            # Photographs larger than the frames cost time and cause aliasing.
            options = replace(options, cover=frame_size, longest_side=_MAX_SIDE)
        folders = choice.scene_folders() if choice.scan else find_scenes(name, choice.root)
        scene = read_scene(name, folders[0], options)
    logger.info(
        "%s: %d views of %dx%d", scene.name, len(scene.view_ids), *reversed(scene.image_size)
    )
    return scene


def _open_tuned(
    choice: SceneChoice, renderer: RendererChoice, device: torch.device
) -> RenderableScene:
    """Read a fine-tuned scene; of the scene settings only ``near_far`` has an effect."""
    if choice.sources:
        raise UserError(
            "--sources: a fine-tuned scene uses the views that it was trained on; leave it out"
        )
    given, defaults = asdict(choice), asdict(SceneChoice(near_far=choice.near_far))
    if ignored := ", ".join(f"--{name}" for name in given if given[name] != defaults[name]):
        message = "%s is a fine-tuned scene, which holds its photographs: ignoring %s"
        logger.warning(message, renderer.ckpt, ignored)
    tuned = open_tuned(renderer.ckpt, device, chunk=renderer.chunk, bf16=renderer.bf16)
    if choice.near_far or renderer.N_samples:
        near_far = torch.tensor(choice.near_far) / tuned.unit.factor
        near, far = (near_far if choice.near_far else tuned.near_far).tolist()
        tuned = tuned.with_sampling(near, far, renderer.N_samples or tuned.n_samples)
    if renderer.compile:
        compile_model(tuned.model)
    return tuned


def compile_model(model: NovelViewModel) -> None:
    """Compile the model's rendering; raise ``UserError`` for a baseline."""
    if not isinstance(model, VGGTNeRF):
        raise UserError("--compile: baselines cannot be compiled; leave it out")
    model.compile_rendering()


def _read_world(
    choice: SceneChoice, frame_size: Size | None, device: torch.device | str
) -> PosedScene:
    if choice.datadir:
        raise UserError(
            f"--datadir {choice.datadir}: procedural worlds are generated, not read; leave it out "
            "or choose another --dataset_name"
        )
    generator = ProceduralGenerator(ProceduralConfig(seed=choice.world_seed), device)
    min_height, min_width = _MIN_WORLD_SIZE
    height, width = frame_size or _MIN_WORLD_SIZE
    height = max(height, min_height)
    size = choice.size or (height, max(width, round(height * min_width / min_height)))
    batch = generator.sample([choice.world], choice.world_views, size, choice.world_difficulty)
    scene = posed_world(batch, f"world{choice.world:04d}")
    return replace(scene, near_far=torch.tensor(choice.near_far)) if choice.near_far else scene
