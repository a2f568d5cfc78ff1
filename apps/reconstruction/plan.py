"""How large pictures can be on this machine, from one timed frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from apps.reconstruction.config import ReconstructionConfig
from apps.rendering.config import CameraPathChoice
from apps.rendering.cost import RenderingCost, timed_frame
from apps.rendering.frames import Job, plan_frames
from apps.rendering.geometry import source_job
from apps.rendering.open_scene import open_scene
from apps.rendering.paths import make_path
from datasets.formats.options import Size
from datasets.photos.files import is_video

LONGEST_SIDES = (160, 192, 256, 320, 384, 512, 640, 960)
MAX_RENDERINGS = 12
_PROBE = 192
"""Longer side of the frame that is timed."""
_MULTIPLE = 8
_REACH = 0.7
"""Photos are few: farther out, a path leaves what they show."""


@dataclass(frozen=True)
class Plan:
    """What is rendered, and how many seconds it takes."""

    size: Size
    video_seconds: float
    geometry_seconds: float


def make_plan(config: ReconstructionConfig, native: Size) -> Plan:
    """Choose the largest size at which video and geometry take no more than the given minutes."""
    probe = fitted(native, _PROBE)
    settings = config.rendering()
    scene = open_scene(settings.scene, settings.model, probe)
    path = make_path(replace(path_choice(config), size=probe), scene)
    jobs = plan_frames(scene, path), source_job(scene, probe, MAX_RENDERINGS)
    # The first frame on a device is slow: kernels are loaded, memory is taken.
    timed_frame(jobs[1], 0)
    _, cost = timed_frame(jobs[1], len(jobs[1]) - 1)
    if config.finetune:
        # A fine-tuned scene is encoded already.
        cost = replace(cost, encode=0.0)
    if config.size:
        return _plan((config.size[0], config.size[1]), probe, cost, jobs)
    sizes = [fitted(native, side) for side in LONGEST_SIDES if side <= max(*native, _PROBE)]
    plans = [_plan(size, probe, cost, jobs) for size in sizes]
    budget = 60 * config.minutes
    return next(
        (plan for plan in reversed(plans) if plan.video_seconds + plan.geometry_seconds <= budget),
        plans[0],
    )


def path_choice(config: ReconstructionConfig) -> CameraPathChoice:
    """Follow a video's own path; go around what photos show."""
    if is_video(Path(config.photos)):
        return CameraPathChoice(path="interpolate", n_frames=config.n_frames)
    return CameraPathChoice(path="ellipse", n_frames=config.n_frames, reach=_REACH)


def fitted(native: Size, side: int) -> Size:
    """Return the size of an image with the given longer side, in multiples of eight pixels."""
    factor = side / max(native)
    height, width = (max(round(each * factor / _MULTIPLE), 1) * _MULTIPLE for each in native)
    return height, width


def _plan(size: Size, probe: Size, cost: RenderingCost, jobs: Sequence[Job]) -> Plan:
    scaled = cost.scaled(size[0] * size[1] / (probe[0] * probe[1]))
    return Plan(size, *(scaled.of_frames(job, range(len(job))) for job in jobs))
