"""Choice of the image size that fits a time budget, from one timed frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apps.reconstruction.config import ReconstructionConfig
from apps.rendering.config import CameraPathChoice
from apps.rendering.frames import RenderingCost, RenderingJob, plan_frames, timed_frame
from apps.rendering.geometry import source_view_job
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import make_path
from datasets.formats.options import Size
from datasets.photos.files import is_video

_LONGER_SIDES = (160, 192, 256, 320, 384, 512, 640, 960)
MAX_RENDERINGS = 12
_TIMED_SIDE = 192
"""Longer side of the timed frame."""
_MULTIPLE = 8
_REACH = 0.7
"""Extent of the path; a larger path leaves the region that a few photos cover."""


@dataclass(frozen=True)
class Plan:
    """The image size, and the estimated seconds of rendering at this size."""

    size: Size
    video_seconds: float
    geometry_seconds: float


def make_plan(config: ReconstructionConfig, native: Size) -> Plan:
    """Choose the largest size at which video and geometry fit the time budget."""
    timed_size = scaled_size(native, _TIMED_SIDE)
    settings = config.rendering()
    scene = open_scene(settings.scene, settings.model, timed_size)
    path = make_path(replace(path_choice(config), size=timed_size), scene)
    jobs = plan_frames(scene, path), source_view_job(scene, timed_size, MAX_RENDERINGS)
    # The first frame on a device includes loading kernels and allocating memory.
    timed_frame(jobs[1], 0)
    _, cost = timed_frame(jobs[1], len(jobs[1]) - 1)
    if config.finetune:
        # A fine-tuned scene is already encoded.
        cost = replace(cost, encode=0.0)
    if config.size:
        return _plan((config.size[0], config.size[1]), timed_size, cost, jobs)
    sides = [side for side in _LONGER_SIDES if side <= max(*native, _TIMED_SIDE)]
    plans = [_plan(scaled_size(native, side), timed_size, cost, jobs) for side in sides]
    budget = 60 * config.minutes
    return next(
        (plan for plan in reversed(plans) if plan.video_seconds + plan.geometry_seconds <= budget),
        plans[0],
    )


def path_choice(config: ReconstructionConfig) -> CameraPathChoice:
    """Follow the camera of a video; move on an ellipse around the focus point of photos."""
    if is_video(Path(config.photos)):
        return CameraPathChoice(path="interpolate", n_frames=config.n_frames)
    return CameraPathChoice(path="ellipse", n_frames=config.n_frames, reach=_REACH)


def scaled_size(native: Size, side: int) -> Size:
    """Scale a size to the given longer side, rounded to multiples of 8 pixels."""
    factor = side / max(native)
    height, width = (max(round(each * factor / _MULTIPLE), 1) * _MULTIPLE for each in native)
    return height, width


def _plan(size: Size, timed_size: Size, cost: RenderingCost, jobs: Sequence[RenderingJob]) -> Plan:
    scaled = cost.scaled(size[0] * size[1] / (timed_size[0] * timed_size[1]))
    return Plan(size, *(scaled.of_frames(job, range(len(job))) for job in jobs))
