"""Settings of ``reconstruct.py``; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from apps.rendering.config import FrameSize, RendererChoice, SceneAndModelConfig, SceneChoice
from datasets.config import DatasetName
from evaluation.config import DEFAULT_CKPT, DeviceName
from utils.settings import Alias, Count, NonNegative, OptionalRange, Positive, Settings, Within


@dataclass(frozen=True)
class ReconstructionConfig(Settings):
    """All settings of ``reconstruct.py``."""

    positional: ClassVar = "photos"
    essential_flags: ClassVar = {
        "the scene": ("photos", "dataset_name", "near_far"),
        "the results": ("out", "finetune", "minutes", "size", "n_frames"),
        "the model": ("ckpt", "device"),
    }

    photos: Annotated[str, Alias(("datadir",))]
    """folder of photos, a video, or a scene in any supported format (the first argument)"""
    out: str = ""
    """folder for all results; none: results/NAME"""
    finetune: NonNegative = 0.0
    """seconds of fine-tuning on this scene before rendering; 0: none"""
    minutes: Positive = 3.0
    """time budget of video and geometry, which determines the image size"""
    size: FrameSize = ()
    """height and width of the images; none: the largest within --minutes on this machine"""
    n_frames: Annotated[int, Within(2)] = 48
    """frames of the video"""
    n_views: Count = 3
    """source views per rendered image"""
    dataset_name: DatasetName = "auto"
    """format of the scene; auto: recognised from the folder"""
    near_far: OptionalRange = ()
    """nearest and farthest depth in the unit of the files; none: those in the files, or estimated
    from matched features"""
    ckpt: str = DEFAULT_CKPT
    """general checkpoint; for a folder the newest in it"""
    vggt_path: str | None = None
    """folder of the backbone, if it is not where the checkpoint says"""
    device: DeviceName = "auto"
    """where to compute; auto: on a GPU if there is one"""

    def rendering(self, tuned: str | None = None) -> SceneAndModelConfig:
        """Return the scene with the general model, or the fine-tuned scene of a file."""
        scene = SceneChoice(
            dataset_name=self.dataset_name,
            datadir=self.photos,
            near_far=self.near_far,
            n_views=self.n_views,
        )
        model = RendererChoice(
            ckpt=tuned or self.ckpt, vggt_path=self.vggt_path, device=self.device
        )
        # The file of a fine-tuned scene includes its photographs.
        return SceneAndModelConfig(SceneChoice() if tuned else scene, model)
