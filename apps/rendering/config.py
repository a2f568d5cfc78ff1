"""Settings of videos, geometry export and the viewer; importable without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from datasets.config import HeldOutScenes, SceneConfig
from evaluation.config import DEFAULT_CKPT, RenderingModel
from utils.settings import Count, Length, NonNegativeInt, Planes, Positive, Settings, Share, Within

PathKind = Literal["spiral", "orbit", "interpolate", "dtu", "ellipse", "file"]
FrameSize = Annotated[tuple[int, ...], Length((0, 2)), Within(8)]
"""Height and width in pixels, or empty."""
_SCENE_AND_MODEL = {
    "the scene": ("datadir", "dataset_name", "scan", "sources", "n_views"),
    "the model": ("ckpt", "device"),
}
_OUTPUT_SUFFIXES = {
    "out": (".ply",),
    "mesh": (".ply", ".glb"),
    "splats": (".ply",),
    "arrays": (".npz",),
}


@dataclass(frozen=True)
class SceneChoice(SceneConfig):
    """The scene that is rendered."""

    datadir: str = ""
    """data folder: DTU's (or one scan of it), a scene, or a folder of scenes; none: a procedural
    world"""
    sources: tuple[int, ...] = ()
    """source views, counted from 0; none: all. The paths dtu and interpolate pass through them"""
    n_views: Count = 3
    """source views per frame: those nearest to its camera"""
    world: NonNegativeInt = 0
    """number of the procedural world"""
    world_seed: int = HeldOutScenes.world_seed
    """seed of the procedural worlds; use one that no training uses"""
    world_views: Count = 3
    """photographs of the procedural world"""
    world_difficulty: Share = 0.3
    """0: short baselines, little clutter; 1: wide baselines, clutter, changing light"""


@dataclass(frozen=True)
class RendererChoice(RenderingModel):
    """The model that renders the scene."""

    ckpt: str = DEFAULT_CKPT
    """general checkpoint (for a folder, the newest in it), or a fine-tuned scene (latest.tar),
    which needs neither data nor backbone"""
    N_samples: Planes | None = None
    """samples per ray; none: as in the checkpoint"""
    compile: bool = False
    """compile the model: the first frame takes half a minute to two minutes longer, on a GPU each
    further one about half as long"""


@dataclass(frozen=True)
class SceneAndModelConfig(Settings):
    """A scene and the model that renders it."""

    scene: SceneChoice = field(default_factory=SceneChoice)
    model: RendererChoice = field(default_factory=RendererChoice)


@dataclass(frozen=True)
class CameraPathChoice(Settings):
    """The camera path of a video."""

    path: PathKind = "spiral"
    """spiral: for forward-facing scenes; orbit, ellipse: around the point that the cameras face;
    interpolate: through the source cameras in order; dtu: a loop through the middle source views;
    file: --path_file"""
    path_file: str | None = None
    """camera path (JSON) written by nerfstudio's viewer, for --path file"""
    n_frames: Count = 120
    """number of frames; ignored for a path from a file"""
    reach: Positive = 1.0
    """extent of the path: 1 stays inside the region of the source cameras, 2 goes twice as far"""
    zoom: Positive = 1.0
    """factor on the focal length"""
    size: FrameSize = ()
    """height and width of a frame; none: the size at which the photographs are read"""

    def __post_init__(self) -> None:
        """Check that --path file and --path_file are given together."""
        super().__post_init__()
        if (self.path == "file") != (self.path_file is not None):
            raise ValueError("--path file and --path_file FILE go together")


@dataclass(frozen=True)
class VideoConfig(SceneAndModelConfig):
    """All settings of ``render_video.py``."""

    essential_flags: ClassVar = {
        **_SCENE_AND_MODEL,
        "the camera path": ("path", "path_file", "n_frames", "size"),
        "the video": ("out", "fps", "depth"),
    }

    camera_path: CameraPathChoice = field(default_factory=CameraPathChoice)
    out: str = "results/video.mp4"
    """video (.mp4 or .gif); a name without suffix is a folder of frames"""
    fps: Annotated[float, Within(0, 240, above=True)] = 24.0
    """frames per second"""
    depth: bool = False
    """show the depth map beside the colours"""


@dataclass(frozen=True)
class GeometryConfig(SceneAndModelConfig):
    """All settings of ``python -m apps.export_geometry``."""

    essential_flags: ClassVar = {
        **_SCENE_AND_MODEL,
        "the geometry": ("out", "mesh", "splats", "arrays", "size", "tolerance"),
    }

    out: str = "results/points.ply"
    """point cloud (.ply)"""
    mesh: str = ""
    """triangle mesh (.ply or .glb); none: no mesh"""
    splats: str = ""
    """the points as 3D Gaussians (.ply) for splat viewers; none: no splats"""
    arrays: str = ""
    """rendered depths and colours with their cameras (.npz); none: no arrays"""
    size: FrameSize = ()
    """height and width of the renderings; none: the size at which the photographs are read"""
    max_renderings: Count = 16
    """largest number of source cameras to render, spread evenly over all of them"""
    tolerance: Positive = 0.01
    """largest relative difference of two depths that agree"""
    min_agreeing: NonNegativeInt = 2
    """number of other renderings that must agree on a point, at most all others"""
    resolution: Annotated[int, Within(8, 1024)] = 192
    """cells of the mesh's grid along its longest side"""

    def __post_init__(self) -> None:
        """Check the file formats."""
        super().__post_init__()
        for name, suffixes in _OUTPUT_SUFFIXES.items():
            path = getattr(self, name)
            if (path or name == "out") and not path.lower().endswith(suffixes):
                raise ValueError(f"{name}={path}: must end in {' or '.join(suffixes)}")


@dataclass(frozen=True)
class ViewerConfig(SceneAndModelConfig):
    """All settings of ``view.py``."""

    essential_flags: ClassVar = {
        **_SCENE_AND_MODEL,
        "the viewer": ("host", "port", "height", "points"),
    }

    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 accepts connections from other machines"""
    port: Annotated[int, Within(1, 65535)] = 8080
    """port to listen on"""
    height: Annotated[int, Within(16, 4096)] = 256
    """height of the image at full resolution; its width follows the browser's window"""
    points: str = ""
    """point cloud (.ply) of apps.export_geometry to show; none: a coarse one is computed when the
    viewer is idle"""
