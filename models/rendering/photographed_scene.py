"""A scene for Python programs: photographs as arrays go in, pictures as arrays come out."""

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
from models.photo_cameras import Estimation, estimate_and_keep
from models.rendering.cross_fade import plan_sources, render_cross_fade
from models.rendering.scene import GeneralScene, general_scene
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

    Cameras follow ``utils.cameras``: intrinsics in pixels, camera-to-world with OpenCV's axes.
    """

    scene: GeneralScene

    @property
    def near_far(self) -> Float[Tensor, " 2"]:
        """Nearest and farthest z-depth that is rendered."""
        return self.scene.near_far

    @property
    def K(self) -> Float32[np.ndarray, "view 3 3"]:  # noqa: N802
        """Intrinsics of the photographs."""
        return self.scene.cameras.intrinsics.numpy()

    @property
    def c2w(self) -> Float64[np.ndarray, "view 4 4"]:
        """Poses of the photographs, in the coordinates in which they were given."""
        return self.scene.photographs.cameras_of_files.c2w.numpy()

    def render(
        self,
        K: Shaped[np.ndarray, "3 3"],  # noqa: N803
        c2w: Shaped[np.ndarray, "4 4"],
        size: tuple[int, int] | None = None,
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Float32[np.ndarray, "height width"]]:
        """Render a camera: RGB, and z-depth in the unit of the cameras.

        ``size`` is height and width in pixels, those of the photographs unless given.
        """
        size = size or self.scene.image_size
        (pose,) = _poses(np.asarray(K)[None], np.asarray(c2w)[None], size)
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
        """Render a closed path through the photographs' cameras to an ``.mp4`` or ``.gif``."""
        scene, size = self.scene, size or self.scene.image_size
        c2w = _PATHS[kind](scene.cameras, scene.near_far, n_frames)
        intrinsics = path_intrinsics(scene.cameras.intrinsics, scene.image_size, size)
        along = Cameras(intrinsics.expand(n_frames, 3, 3), c2w)
        plan = plan_sources(scene, along, size, closed=True)
        frames = (
            render_cross_fade(scene, along[frame], size, sets).rgb
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
    """Check photographs and cameras, estimate what is not given, and put them together."""
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
        count = len(images)
        if K.shape != (count, 3, 3) or c2w.shape != (count, 4, 4):
            raise UserError(
                f"{count} images need K of shape ({count}, 3, 3) and c2w of ({count}, 4, 4), found "
                f"{K.shape} and {c2w.shape}."
            )
        height, width = images.shape[1:3]
        poses, origin = recentred(_poses(K, c2w, (height, width)))
        views = _views(images, Cameras(torch.from_numpy(np.array(K, np.float32)), poses))
        scene = PosedScene(
            *("photographs", tuple(range(count)), tuple(map(str, range(count)))),
            cameras=views.cameras,
            near_far=_near_far(views) if bounds is None else bounds,
            image_size=views.size,
            read_view=partial(_pixels, views),
            origin=origin,
        )
    return PhotographedScene(general_scene(model, scene, scene.view_ids, n_views))


def _estimated_scene(images: UInt8[np.ndarray, "view height width 3"]) -> PosedScene:
    """Return the photographs that could be placed, undistorted, in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{number:06d}.png", compress_level=1)
        estimate_and_keep(folder, scene_cache(folder), Estimation(max_views=len(images)))
        scene = open_scene("photos", folder)
        pixels = [scene.read_view(view) for view in scene.view_ids]
        return replace(scene, read_view=pixels.__getitem__)


def _pixels(views: Views, view: int) -> ViewPixels:
    image = views.images[view].permute(1, 2, 0).numpy()
    return ViewPixels(image, views.depths[view].numpy(), views.masks[view].numpy())


def _views(images: UInt8[np.ndarray, "view height width 3"], cameras: Cameras) -> Views:
    pixels = torch.stack([from_bytes(image) for image in images])
    depths = torch.zeros(len(images), *images.shape[1:3])
    return Views(pixels, cameras, depths, torch.ones_like(depths, dtype=torch.bool))


def _near_far(views: Views) -> Float[Tensor, " 2"]:
    size = ReadOptions(longest_side=MATCHED_SIDE).target_size(views.size)
    small = views.resized(size)
    measured = measure_near_far(small.cameras, partial(_pixels, small))
    return torch.tensor(measured) if measured else estimate_near_far(small.cameras, "these cameras")


def _poses(
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
