"""Settings of ``reconstruct.py``; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from apps.rendering.config import FrameSize, RendererChoice, SceneAndModelConfig, SceneChoice
from datasets.config import DatasetName
from evaluation.config import DEFAULT_CKPT, DeviceName
from utils.settings import Alias, Count, NonNegative, OptionalRange, Positive, Settings, Within


@dataclass(frozen=True)
class ReconstructionConfig(Settings):
    """All settings of ``reconstruct.py``."""

    positional: ClassVar[str] = "photos"
    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "the scene": ("photos", "dataset_name", "near_far"),
        "what is made": ("out", "finetune", "minutes", "size", "n_frames"),
        "the model": ("ckpt", "device"),
    }

    photos: Annotated[str, Alias(("datadir",))]
    """folder of photos, a video, or a scene in any format that is read (the first argument)"""
    out: str = ""
    """folder for everything that is made; none: results/NAME"""
    finetune: NonNegative = 0.0
    """seconds to train on this scene first; 0: none"""
    minutes: Positive = 3.0
    """time that video and geometry may take: it decides how large pictures are"""
    size: FrameSize = ()
    """height and width of pictures; none: what this machine does in the given minutes"""
    n_frames: Annotated[int, Within(2)] = 48
    """frames of the video"""
    n_views: Count = 3
    """source views that a picture is made from"""
    dataset_name: DatasetName = "auto"
    """format of the scene; auto: what the folder holds tells"""
    near_far: OptionalRange = ()
    """nearest and farthest depth in the unit of the files; none: as the files have them, or as
    matched features tell"""
    ckpt: str = DEFAULT_CKPT
    """general checkpoint; of a folder the newest one in it"""
    vggt_path: str | None = None
    """folder of the backbone, if it is not where the checkpoint says"""
    device: DeviceName = "auto"
    """where to compute; auto: on a GPU if there is one"""

    def rendering(self, tuned: str | None = None) -> SceneAndModelConfig:
        """Return the scene and what renders it: a fine-tuned scene's file, or the general model."""
        scene = SceneChoice(
            dataset_name=self.dataset_name,
            datadir=self.photos,
            near_far=self.near_far,
            n_views=self.n_views,
        )
        model = RendererChoice(
            ckpt=tuned or self.ckpt, vggt_path=self.vggt_path, device=self.device
        )
        # A fine-tuned scene holds its photographs.
        return SceneAndModelConfig(SceneChoice() if tuned else scene, model)
