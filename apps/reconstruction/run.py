"""Reconstruction of photos or a video in resumable stages."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from apps.inspection.checks import check_scene
from apps.inspection.scene_figure import draw_scene
from apps.reconstruction.config import ReconstructionConfig
from apps.reconstruction.plan import MAX_RENDERINGS, make_plan, path_choice
from apps.reconstruction.poses import write_poses
from apps.reconstruction.stages import Stages
from apps.rendering.config import CameraPathChoice, GeometryConfig, VideoConfig
from apps.rendering.frames import format_duration
from apps.rendering.geometry_export import run_export
from apps.rendering.geometry_files import read_points
from apps.rendering.open_scene import open_photographs
from apps.rendering.video import run_video
from datasets.config import DataChoice, SceneConfig
from datasets.formats.format_table import FORMATS
from datasets.formats.options import Size
from datasets.formats.registry import find_scenes, open_scene
from datasets.photos.files import scene_name
from models.checkpoints.general import read_model_file
from models.scenes.photo_cameras import ensure_cameras
from training.config import FineTuningConfig, LossConfig, SceneOptimizerConfig, SceneRunConfig
from training.finetuning.run import run_finetuning
from utils.devices import choose_devices
from utils.errors import UserError
from utils.files import check_output_folder, shell_command

_LOG = logging.getLogger(__name__)
_CHECKED_PAIRS = 8
_MAX_PHOTO_SIDE = 1600
"""Largest side of the photos that are written for other programs."""
_CHECK_SECONDS, _POSES_SECONDS = 10.0, 5.0


def run_reconstruction(config: ReconstructionConfig) -> str:
    """Run all stages and return the results with commands for the next steps."""
    source = Path(config.photos)
    name = SceneConfig(dataset_name=config.dataset_name, datadir=config.photos).format_name
    if name == "procedural":
        raise UserError(
            "--dataset_name procedural: worlds are generated, not photographed; give a folder of "
            "photos"
        )
    out = check_output_folder(config.out or f"results/{scene_name(source)}", "--out")
    read_model_file(config.ckpt)
    return _Reconstruction(replace(config, dataset_name=name), out).run()


class _Reconstruction:
    """The stages of one reconstruction."""

    def __init__(self, config: ReconstructionConfig, out: Path) -> None:
        self.config, self.out = config, out
        self.video, self.points = out / "video.mp4", out / "points.ply"
        self.mesh, self.poses = out / "mesh.glb", out / "poses"
        self.splats = out / "splats.ply"
        expected: dict[str, float | None] = {"cameras": None, "check": _CHECK_SECONDS}
        expected["image size"] = None
        if config.finetune:
            expected["fine-tuning"] = config.finetune
        expected |= {"video": None, "geometry": None, "poses": _POSES_SECONDS}
        settings = {**asdict(config), "out": "", "photos": str(Path(config.photos).resolve())}
        key = hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:16]
        self.stages = Stages.opened(out, key, expected)

    def run(self) -> str:
        """Run the stages that are not finished."""
        native: Size = tuple(self.stages.run("cameras", self._cameras))
        self.stages.run("check", self._check)
        plan = self.stages.run("image size", lambda: self._size(native))
        size = plan["size"]
        self.stages.expected |= {name: plan[f"{name}_seconds"] for name in ("video", "geometry")}
        tuned = None
        if self.config.finetune:
            outputs = (self._tuned_file(),)
            self.stages.run("fine-tuning", lambda: self._finetune(size), outputs)
            # Not from the record: this run may have another working directory.
            tuned = str(self._tuned_file())
        self.stages.run("video", lambda: self._video(tuned, tuple(size)), (self.video,))
        outputs = self.points, self.mesh, self.splats
        self.stages.run("geometry", lambda: self._geometry(tuned, tuple(size)), outputs)
        self.stages.run("poses", self._poses, (self.poses / "transforms.json",))
        return self._next_lines(tuned, plan)

    def _cameras(self) -> Size:
        settings = self.config.rendering()
        ensure_cameras(settings.scene, choose_devices(self.config.device)[0])
        return open_photographs(settings.scene, None).image_size

    def _check(self) -> str:
        scene = open_photographs(self.config.rendering().scene, None)
        checks = check_scene(scene, _CHECKED_PAIRS, FORMATS[self.config.dataset_name].poses)
        lines = [*checks.facts, *(f"note: {text}" for text in checks.warnings)]
        lines += [f"WRONG: {problem}" for problem in checks.problems]
        if checks.pair is not None:
            figure = self.out / "check.png"
            draw_scene(scene, checks.pair, figure, scene.name)
            lines.append(f"cameras and a warped neighbouring view: {figure}")
        return "\n".join(f"    {line}" for line in lines)

    def _size(self, native: Size) -> dict[str, Any]:
        plan = make_plan(self.config, native)
        height, width = plan.size
        video, geometry = map(format_duration, (plan.video_seconds, plan.geometry_seconds))
        message = "    images of %dx%d: video about %s, geometry about %s (--minutes or --size)"
        _LOG.info(message, width, height, video, geometry)
        return asdict(plan)

    def _tuned_file(self) -> Path:
        """Return the file of the fine-tuned scene, which may not exist yet."""
        folder, name = self.out / "fine_tuning", f"{self.stages.key}/ckpts/latest.tar"
        return next(folder.glob(f"*/{name}"), folder / "scene" / name)

    def _finetune(self, size: Size) -> str:
        config, name, folder = self.config, self.stages.key, self.out / "fine_tuning"
        checkpoint = self._tuned_file()
        settings = FineTuningConfig(
            run=SceneRunConfig(
                expname=name,
                save_dir=str(folder),
                ckpt=str(checkpoint) if checkpoint.exists() else None,
                init_ckpt=config.ckpt,
                vggt_path=config.vggt_path,
                device=config.device,
            ),
            data=DataChoice(
                dataset_name=config.dataset_name,
                datadir=config.photos,
                image_size=tuple(size),
                near_far=config.near_far,
                n_views=config.n_views,
            ),
            optimizer=SceneOptimizerConfig(
                max_seconds=config.finetune, targets_per_step=1, lrate=3e-4
            ),
            loss=LossConfig(coarse_weight=0.0, ssim_weight=0.1),
        )
        return run_finetuning(settings)

    def _video(self, tuned: str | None, size: Size) -> str:
        settings = self.config.rendering(tuned)
        path = replace(path_choice(self.config), size=size)
        config = VideoConfig(settings.scene, settings.model, path, str(self.video), depth=True)
        return run_video(config)

    def _geometry(self, tuned: str | None, size: Size) -> str:
        settings = self.config.rendering(tuned)
        config = GeometryConfig(
            settings.scene,
            settings.model,
            out=str(self.points),
            mesh=str(self.mesh),
            splats=str(self.splats),
            size=size,
            max_renderings=MAX_RENDERINGS,
        )
        try:
            return run_export(config)
        except UserError as error:
            # Video and poses do not depend on the geometry.
            _LOG.warning("    no geometry: %s", error)
            return "no geometry"

    def _poses(self) -> str:
        choice = self.config.rendering().scene
        options = replace(choice.options, longest_side=_MAX_PHOTO_SIDE)
        folder = find_scenes(choice.dataset_name, Path(choice.datadir))[0]
        scene = open_scene(choice.dataset_name, folder, options)
        cloud = read_points(self.points) if self.points.exists() else None
        return write_poses(scene, cloud, self.poses)

    def _next_lines(self, tuned: str | None, plan: dict[str, Any]) -> str:
        photos = self.config.photos
        data = ["--dataset_name", self.config.dataset_name, "--datadir", photos]
        if tuned:
            data = ["--ckpt", tuned]
        path, size = path_choice(self.config).path, [2 * side for side in plan["size"]]
        larger = "--path", path, "--size", *size, "--out", self.out / "large.mp4"
        # Four times the pixels, and the default number of frames.
        seconds = 4 * self.stages.done["video"]["seconds"]
        seconds *= CameraPathChoice().n_frames / self.config.n_frames
        finer = photos, "--finetune", 300, "--out", f"{self.out}_tuned"
        lines = [
            f"{self.out}: video.mp4, points.ply, splats.ply, mesh.glb, poses/, check.png. Next:",
            f"  interactive viewer: {shell_command('view.py', *data, '--points', self.points)}",
            f"  larger video:       {shell_command('render_video.py', *data, *larger)}  "
            f"(about {format_duration(seconds)})",
        ]
        if not tuned:
            again = shell_command("reconstruct.py", *finer)
            lines.append(f"  fine-tuning:        {again}  (5 min more)")
        return "\n".join(lines)
