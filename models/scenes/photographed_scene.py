"""The Python API of a scene: photographs as arrays in, renderings as arrays out."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Shaped, UInt8
from PIL import Image
from torch import Tensor

from datasets.formats.checks import check_pinhole, rigid_poses
from datasets.formats.depth_range import MATCHED_SIDE, estimate_near_far, measure_near_far
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from datasets.posed_scene import PosedScene, ViewPixels
from datasets.scene_cache import scene_cache
from datasets.views import Views
from models.scenes.cross_fade import plan_sources, render_cross_fade
from models.scenes.photo_cameras import Estimation, estimate_and_save
from models.scenes.renderable_scene import GeneralScene, general_scene
from models.vggt_nerf import VGGTNeRF
from utils.cameras import Cameras, recentred
from utils.errors import UserError
from utils.images import from_bytes, to_bytes
from utils.trajectories import ellipse, orbit, path_intrinsics, spiral
from utils.video import write_video

_PATHS = {"spiral": spiral, "orbit": orbit, "ellipse": ellipse}


@dataclass(frozen=True)
class PhotographedScene:
    """Photographs with cameras, and a general model that renders the scene from any camera.

    Cameras follow ``utils.cameras``.
    """

    scene: GeneralScene

    @property
    def near_far(self) -> Float[Tensor, " 2"]:
        """Rendered range of z-depths."""
        return self.scene.near_far

    @property
    def K(self) -> Float32[np.ndarray, "view 3 3"]:  # noqa: N802
        """Intrinsics of the photographs."""
        return self.scene.cameras.intrinsics.numpy()

    @property
    def c2w(self) -> Float64[np.ndarray, "view 4 4"]:
        """Poses of the photographs, in the coordinates of the input."""
        return self.scene.photographs.cameras_of_files.c2w.numpy()

    def render(
        self,
        K: Shaped[np.ndarray, "3 3"],  # noqa: N803
        c2w: Shaped[np.ndarray, "4 4"],
        size: tuple[int, int] | None = None,
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Float32[np.ndarray, "height width"]]:
        """Render RGB and z-depth, the latter in the unit of the cameras.

        ``size`` is (height, width) in pixels; by default that of the photographs.
        """
        size = size or self.scene.image_size
        (pose,) = _checked_poses(np.asarray(K)[None], np.asarray(c2w)[None], size)
        pose[:3, 3] -= self.scene.origin
        camera = Cameras(torch.from_numpy(np.array(K, np.float32)), pose.float())
        (sources,) = self.scene.choose_sources(camera[None], size)
        view = self.scene.render(camera, size, sources)
        return to_bytes(view.rgb), view.depth.numpy()

    def save_video(
        self,
        path: str | Path,
        kind: Literal["spiral", "orbit", "ellipse"] = "spiral",
        n_frames: int = 60,
        fps: float = 24.0,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Render a closed path around the photographs' cameras to an ``.mp4`` or ``.gif``."""
        scene, size = self.scene, size or self.scene.image_size
        c2w = _PATHS[kind](scene.cameras, scene.near_far, n_frames)
        intrinsics = path_intrinsics(scene.cameras.intrinsics, scene.image_size, size)
        cameras = Cameras(intrinsics.expand(n_frames, 3, 3), c2w)
        plan = plan_sources(scene, cameras, size, closed=True)
        frames = (
            render_cross_fade(scene, cameras[frame], size, sets).rgb
            for frame, sets in enumerate(plan)
        )
        write_video(path, frames, fps)


def photographed_scene(
    model: VGGTNeRF,
    images: Shaped[np.ndarray, ...],
    K: Shaped[np.ndarray, ...] | None,  # noqa: N803
    c2w: Shaped[np.ndarray, ...] | None,
    near_far: tuple[float, float] | None,
    n_views: int,
) -> PhotographedScene:
    """Check photographs and cameras, estimate missing ones, and build the scene."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) < 2:
        raise UserError(
            f"images: expected two or more as uint8 (view, height, width, 3), found "
            f"{images.dtype} {images.shape}."
        )
    if (K is None) != (c2w is None):
        raise UserError("K and c2w go together: give both, or neither to have both estimated.")
    bounds = torch.tensor(near_far, dtype=torch.float32) if near_far else None
    if K is None or c2w is None:
        scene = _estimated_scene(images)
        scene = scene if bounds is None else replace(scene, near_far=bounds)
    else:
        scene = _posed_scene(images, K, c2w, bounds)
    return PhotographedScene(general_scene(model, scene, scene.view_ids, n_views))


def _posed_scene(
    images: UInt8[np.ndarray, "view height width 3"],
    K: Shaped[np.ndarray, ...],  # noqa: N803
    c2w: Shaped[np.ndarray, ...],
    bounds: Float[Tensor, " 2"] | None,
) -> PosedScene:
    """Build a scene from photographs with given cameras."""
    count, height, width, _ = images.shape
    if K.shape != (count, 3, 3) or c2w.shape != (count, 4, 4):
        raise UserError(
            f"{count} images need K of shape ({count}, 3, 3) and c2w of ({count}, 4, 4), found "
            f"{K.shape} and {c2w.shape}."
        )
    poses, origin = recentred(_checked_poses(K, c2w, (height, width)))
    views = Views(
        images=torch.stack([from_bytes(image) for image in images]),
        cameras=Cameras(torch.from_numpy(np.array(K, np.float32)), poses),
        depths=torch.zeros(count, height, width),
        masks=torch.ones(count, height, width, dtype=torch.bool),
    )
    return PosedScene(
        *("photographs", tuple(range(count)), tuple(map(str, range(count)))),
        cameras=views.cameras,
        near_far=_estimated_near_far(views) if bounds is None else bounds,
        image_size=views.size,
        read_view=partial(_view_pixels, views),
        origin=origin,
    )


def _estimated_scene(images: UInt8[np.ndarray, "view height width 3"]) -> PosedScene:
    """Return the registered photographs, undistorted, in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{number:06d}.png", compress_level=1)
        estimate_and_save(folder, scene_cache(folder), Estimation(max_views=len(images)))
        scene = open_scene("photos", folder)
        pixels = [scene.read_view(view) for view in scene.view_ids]
        return replace(scene, read_view=pixels.__getitem__)


def _view_pixels(views: Views, view: int) -> ViewPixels:
    image = views.images[view].permute(1, 2, 0).numpy()
    return ViewPixels(image, views.depths[view].numpy(), views.masks[view].numpy())


def _estimated_near_far(views: Views) -> Float[Tensor, " 2"]:
    """Measure the depth range by matching small views, or else guess it from the cameras."""
    small = views.resized(ReadOptions(longest_side=MATCHED_SIDE).target_size(views.size))
    measured = measure_near_far(small.cameras, partial(_view_pixels, small))
    return torch.tensor(measured) if measured else estimate_near_far(small.cameras, "these cameras")


def _checked_poses(
    K: Shaped[np.ndarray, "view 3 3"],  # noqa: N803
    c2w: Shaped[np.ndarray, "view 4 4"],
    size: tuple[int, int],
) -> Float64[Tensor, "view 4 4"]:
    """Check cameras, and return their poses in double precision."""
    for number, matrix in enumerate(np.asarray(K, np.float64)):
        focal, center = (matrix[0, 0], matrix[1, 1]), (matrix[0, 2], matrix[1, 2])
        check_pinhole(focal, center, size, f"K[{number}]")
    matrices = torch.from_numpy(np.array(c2w, np.float64)[:, :3])
    return rigid_poses(matrices, [f"c2w[{number}]" for number in range(len(c2w))])
