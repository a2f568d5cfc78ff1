"""Settings of videos, geometry and the viewer; importable without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from datasets.config import HeldOutScenes, SceneConfig
from evaluation.config import DEFAULT_CKPT, RenderingModel
from utils.settings import Count, Length, NonNegativeInt, Planes, Positive, Settings, Share, Within

PathKind = Literal["spiral", "orbit", "interpolate", "dtu", "ellipse", "file"]


FrameSize = Annotated[tuple[int, ...], Length((0, 2)), Within(8)]
"""Height and width in pixels, or nothing."""
_SCENE_AND_MODEL: Mapping[str, tuple[str, ...]] = {
    "the scene": ("datadir", "dataset_name", "scan", "sources", "n_views"),
    "the model": ("ckpt", "device"),
}


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
class RendererChoice(RenderingModel):
    """What renders, and how."""

    ckpt: str = DEFAULT_CKPT
    """general checkpoint (of a folder the newest one in it), or a fine-tuned scene (latest.tar),
    which needs neither data nor backbone"""
    N_samples: Planes | None = None
    """samples on each ray; none: as the checkpoint has it"""
    compile: bool = False
    """compile the model: the first frame takes a minute more, and on a GPU the others less than
    half of their time"""


@dataclass(frozen=True)
class SceneAndModelConfig(Settings):
    """A scene and what renders it."""

    scene: SceneChoice = field(default_factory=SceneChoice)
    model: RendererChoice = field(default_factory=RendererChoice)


@dataclass(frozen=True)
class CameraPathChoice(Settings):
    """Where the camera goes."""

    path: PathKind = "spiral"
    """spiral: for forward-facing scenes; orbit, ellipse: around what the cameras look at;
    interpolate: through the cameras in their order; dtu: a loop through the middle source views;
    file: --path_file"""
    path_file: str | None = None
    """camera path as nerfstudio's viewer writes it (JSON), for --path file"""
    n_frames: Count = 120
    """frames; a path from a file has its own number"""
    reach: Positive = 1.0
    """1: the path stays inside what the source views see, 2: it goes twice as far out"""
    zoom: Positive = 1.0
    """above 1 shows less, enlarged"""
    size: FrameSize = ()
    """height and width of a frame; none: as the photographs are read"""

    def __post_init__(self) -> None:
        """Check that a path from a file has one."""
        super().__post_init__()
        if (self.path == "file") != (self.path_file is not None):
            raise ValueError("--path file and --path_file FILE go together")


@dataclass(frozen=True)
class VideoConfig(SceneAndModelConfig):
    """All settings of ``render_video.py``."""

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **_SCENE_AND_MODEL,
        "the camera path": ("path", "path_file", "n_frames", "size"),
        "the video": ("out", "fps", "depth"),
    }

    camera_path: CameraPathChoice = field(default_factory=CameraPathChoice)
    out: str = "results/video.mp4"
    """video (.mp4 or .gif) or, without such an ending, a folder of frames"""
    fps: Annotated[float, Within(0, 240, above=True)] = 24.0
    """frames per second"""
    depth: bool = False
    """show the depth beside the picture"""


@dataclass(frozen=True)
class GeometryConfig(SceneAndModelConfig):
    """All settings of ``python -m apps.export_geometry``."""

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **_SCENE_AND_MODEL,
        "the geometry": ("out", "mesh", "splats", "arrays", "size", "tolerance"),
    }

    out: str = "results/points.ply"
    """point cloud (.ply)"""
    mesh: str = ""
    """triangle mesh (.ply or .glb); none: no mesh"""
    splats: str = ""
    """the points as Gaussian splats (.ply), as viewers of these open them; none: no splats"""
    arrays: str = ""
    """depths, colours and cameras of the renderings (.npz) for NumPy; none: no arrays"""
    size: FrameSize = ()
    """height and width of the renderings; none: as the photographs are read"""
    max_renderings: Count = 16
    """source cameras that are rendered, spread evenly over all of them"""
    tolerance: Positive = 0.01
    """two depths agree if they differ by no more than this share"""
    min_agreeing: NonNegativeInt = 2
    """how many other renderings must agree on a point, if there are as many"""
    resolution: Annotated[int, Within(8, 1024)] = 192
    """cells of the mesh's grid along its longest side"""

    def __post_init__(self) -> None:
        """Check the file formats."""
        super().__post_init__()
        if not self.out.lower().endswith(".ply"):
            raise ValueError(f"out={self.out}: must end in .ply")
        if not (self.mesh or ".ply").lower().endswith((".ply", ".glb")):
            raise ValueError(f"mesh={self.mesh}: must end in .ply or .glb")
        if not (self.splats or ".ply").lower().endswith(".ply"):
            raise ValueError(f"splats={self.splats}: must end in .ply")
        if not (self.arrays or ".npz").lower().endswith(".npz"):
            raise ValueError(f"arrays={self.arrays}: must end in .npz")


@dataclass(frozen=True)
class ViewerConfig(SceneAndModelConfig):
    """All settings of ``view.py``."""

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **_SCENE_AND_MODEL,
        "the viewer": ("host", "port", "height", "points"),
    }

    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 lets other machines in"""
    port: Annotated[int, Within(1, 65535)] = 8080
    """port to listen on"""
    height: Annotated[int, Within(16, 4096)] = 256
    """rows of the sharpest picture; columns follow the browser's window"""
    points: str = ""
    """point cloud (.ply) of apps.export_geometry to show; none: a coarse one is made when idle"""
