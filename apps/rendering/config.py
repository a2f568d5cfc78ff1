"""Everything that rendering a scene can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from datasets.config import HeldOutScenes, SceneConfig
from evaluation.config import ModelChoice
from utils.settings import Count, NonNegativeInt, Share

PathKind = Literal["spiral", "orbit", "interpolate", "dtu", "ellipse", "file"]


@dataclass(frozen=True)
class SceneChoice(SceneConfig):
    """The scene to look at."""

    datadir: str = ""
    """Folder of the data: DTU's (or one scan of it), or a scene, or a folder of scenes; none: a
    procedural world"""
    sources: tuple[int, ...] = ()
    """Views that may be read, counted from 0; none: all. With --path dtu and interpolate the path
    goes through them"""
    n_views: Count = 3
    """Source views that a picture is made from, those nearest to its camera"""
    world: NonNegativeInt = 0
    """Which procedural world"""
    world_seed: int = HeldOutScenes.world_seed
    """Seed of the procedural worlds; no training may use it"""
    world_views: Count = 3
    """Photographs of the procedural world"""
    world_difficulty: Share = 0.3
    """0: near views of little clutter, 1: wide baselines, clutter, changing light"""


@dataclass(frozen=True)
class RendererChoice:
    """What renders, and how."""

    ckpt: str = ModelChoice.ckpt
    """General checkpoint (of a folder the newest one in it), or a fine-tuned scene (latest.tar),
    which needs neither data nor backbone"""
    vggt_path: str | None = None
    """Folder of the backbone, where it is not at the place that the checkpoint remembers"""
    N_samples: int | None = None
    """Samples on each ray; as the checkpoint has it unless given"""
    chunk: int = 8192
    """Rays in one go: bounds the memory and changes no result"""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Arithmetic of the model; the backbone uses bfloat16 on a GPU whatever this says"""
    compile: bool = False
    """Turn looking and rendering into graphs: the first frame takes a minute more, and on a GPU
    the others less than half of their time"""
    accelerator: Literal["auto", "gpu", "cpu"] = "auto"
    """Where to render; auto: on a GPU if there is one"""

    def __post_init__(self) -> None:
        """Refuse counts that do nothing.

        Raises:
            ValueError: Names the value.
        """
        if self.chunk < 1 or (self.N_samples is not None and self.N_samples < 2):
            raise ValueError(f"chunk={self.chunk} must be positive, N_samples at least 2")


@dataclass(frozen=True)
class CameraPathChoice:
    """Where the camera goes."""

    path: PathKind = "spiral"
    """spiral: for forward-facing scenes; orbit, ellipse: around what the cameras look at;
    interpolate: through the cameras in their order; dtu: a loop through the middle source views;
    file: --path_file"""
    path_file: str | None = None
    """Camera path as nerfstudio's viewer writes it (JSON), for --path file"""
    n_frames: int = 120
    """Frames; a path from a file has its own number"""
    reach: float = 1.0
    """1: the path stays inside what the source views see, 2: it goes twice as far out"""
    zoom: float = 1.0
    """Above 1 shows less, enlarged"""
    size: tuple[int, ...] = ()
    """Height and width of a frame; none: as the photographs are read"""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: Names the value.
        """
        if self.n_frames < 1:
            raise ValueError(f"n_frames={self.n_frames}: at least one is needed")
        if len(self.size) not in (0, 2) or (self.size and min(self.size) < 8):
            raise ValueError(f"size={self.size}: takes height and width, of at least 8 pixels")
        if self.reach <= 0 or self.zoom <= 0:
            raise ValueError(f"reach={self.reach} and zoom={self.zoom} must be positive")
        if (self.path == "file") != (self.path_file is not None):
            raise ValueError("--path file and --path_file FILE go together")


@dataclass(frozen=True)
class VideoChoice:
    """What is written."""

    out: str = "results/video.mp4"
    """Video (.mp4 or .gif) or, without such an ending, a folder of frames"""
    fps: float = 24.0
    """Frames per second"""
    depth: bool = False
    """Show the depth beside the picture"""
    fade: int = 12
    """Frames over which one set of source views fades into the next, fewer where the camera is
    fast"""

    def __post_init__(self) -> None:
        """Refuse what cannot be shown.

        Raises:
            ValueError: Names the value.
        """
        if not 0 < self.fps <= 240 or self.fade < 1:
            raise ValueError(f"fps={self.fps} must lie in (0, 240], fade={self.fade} at least 1")


@dataclass(frozen=True)
class VideoConfig:
    """All settings of ``render_video.py``."""

    scene: SceneChoice = field(default_factory=SceneChoice)
    model: RendererChoice = field(default_factory=RendererChoice)
    camera_path: CameraPathChoice = field(default_factory=CameraPathChoice)
    video: VideoChoice = field(default_factory=VideoChoice)
