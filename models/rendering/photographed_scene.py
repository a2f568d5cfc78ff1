"""A scene for Python programs: photographs as arrays go in, pictures as arrays come out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Shaped, UInt8
from PIL import Image
from torch import Tensor

from datasets.formats.checks import check_pinhole, estimate_near_far, rigid_c2w
from datasets.formats.depth_range import MATCHED_SIDE, SmallViews, measure_near_far
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from datasets.posed_scene import ViewPixels
from datasets.scene_cache import scene_cache
from datasets.views import Views
from models.photo_cameras import Estimation, estimate_and_keep
from models.projection import SceneFeatures
from models.vggt_nerf import VGGTNeRF
from utils.camera_rig import nearest_sources
from utils.cameras import Cameras, recentred
from utils.errors import UserError
from utils.images import from_bytes
from utils.trajectories import ellipse, orbit, path_intrinsics, spiral
from utils.video import write_video

_PATHS = {"spiral": spiral, "orbit": orbit, "ellipse": ellipse}
_ENCODED_SETS = 4
"""Sets of sources that stay encoded."""
_FADE = 12
"""Frames of a video over which one set of sources gives way to the next."""


@dataclass(frozen=True)
class PhotographedScene:
    """Photographs with cameras, and a general model that renders the scene from any camera.

    Cameras follow ``utils.cameras``: intrinsics in pixels, camera-to-world with OpenCV's axes.
    """

    model: VGGTNeRF
    views: Views
    """One axis, on the CPU."""
    near_far: Float[Tensor, " 2"]
    n_views: int
    """Views that a picture is made from, those nearest to its camera."""
    origin: Float64[Tensor, " 3"]
    """Where the origin of ``views`` lies in the coordinates of the given cameras."""
    _encoded: dict[tuple[int, ...], SceneFeatures] = field(default_factory=dict, repr=False)

    @property
    def K(self) -> Float32[np.ndarray, "view 3 3"]:  # noqa: N802
        """Intrinsics of the photographs."""
        return self.views.cameras.intrinsics.numpy()

    @property
    def c2w(self) -> Float64[np.ndarray, "view 4 4"]:
        """Poses of the photographs, in the coordinates in which they were given."""
        c2w = self.views.cameras.c2w.double().clone()
        c2w[:, :3, 3] += self.origin
        return c2w.numpy()

    def render(
        self,
        K: Shaped[np.ndarray, "3 3"],  # noqa: N803
        c2w: Shaped[np.ndarray, "4 4"],
        size: tuple[int, int] | None = None,
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Float32[np.ndarray, "height width"]]:
        """Render a camera: RGB, and z-depth in the unit of the cameras.

        ``size`` is height and width in pixels, those of the photographs unless given.
        """
        given = np.asarray(K)[None], np.asarray(c2w)[None]
        poses = _poses(*given, size or self.views.size)
        poses[:, :3, 3] -= self.origin
        camera = Cameras(torch.from_numpy(np.array(given[0], np.float32)), poses.float())
        (sources,) = nearest_sources(camera, self.views.cameras, self.near_far, self.n_views)
        rgb, depth = self._render(camera, size or self.views.size, sources)
        pixels = (rgb.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
        return pixels.contiguous().numpy(), depth.numpy()

    def save_video(
        self,
        path: str | Path,
        kind: Literal["spiral", "orbit", "ellipse"] = "spiral",
        n_frames: int = 60,
        fps: float = 24.0,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Render a closed path through the photographs' cameras to an ``.mp4`` or ``.gif``."""
        cameras, size = self.views.cameras, size or self.views.size
        c2w = _PATHS[kind](cameras, self.near_far, n_frames)
        intrinsics = path_intrinsics(cameras.intrinsics, self.views.size, size)
        along = Cameras(intrinsics.expand(n_frames, 3, 3), c2w)
        write_video(path, self._frames(along, size), fps)

    def _frames(
        self, along: Cameras, size: tuple[int, int]
    ) -> Iterator[Float[Tensor, "3 height width"]]:
        """Render a closed path; sources are chosen now and then, with cross-fades between."""
        count = len(along.c2w)
        keys = torch.arange(0, math.ceil(count / _FADE) + 1) * _FADE % count
        sets = nearest_sources(along[keys], self.views.cameras, self.near_far, self.n_views)
        for frame in range(count):
            before, after = sets[frame // _FADE], sets[frame // _FADE + 1]
            share = frame % _FADE / _FADE
            rgb = self._render(along[frame : frame + 1], size, before)[0]
            if share and before != after:
                rgb = torch.lerp(rgb, self._render(along[frame : frame + 1], size, after)[0], share)
            yield rgb

    @torch.no_grad()
    def _render(
        self, camera: Cameras, size: tuple[int, int], sources: tuple[int, ...]
    ) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "height width"]]:
        device = next(self.model.parameters()).device
        near_far = self.near_far[None].to(device)
        if sources not in self._encoded:
            while len(self._encoded) >= _ENCODED_SETS:
                self._encoded.pop(next(iter(self._encoded)))
            views = self.views.take(sources)[None].to(device)
            self._encoded[sources] = self.model.encode(views, near_far)
        scene = self._encoded[sources]
        images = self.model.render_images(scene, camera.to(device), near_far, size)
        return images.rgb[0].float().cpu(), images.depth[0].float().cpu()


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
    if K is None or c2w is None:
        views, measured = _estimated_views(images)
        origin = torch.zeros(3, dtype=torch.float64)
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
        measured = None if near_far else _near_far(views)
    chosen = measured if near_far is None else torch.tensor(near_far)
    assert chosen is not None
    sources = min(n_views, len(views.images))
    return PhotographedScene(model, views, chosen.float(), sources, origin)


def _estimated_views(
    images: UInt8[np.ndarray, "view height width 3"],
) -> tuple[Views, Float[Tensor, " 2"]]:
    """Return the photographs that could be placed, undistorted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{number:06d}.png", compress_level=1)
        estimate_and_keep(folder, scene_cache(folder), Estimation(max_views=len(images)))
        scene = open_scene("photos", folder)
        return scene.load_views(scene.view_ids), scene.near_far


def _views(images: UInt8[np.ndarray, "view height width 3"], cameras: Cameras) -> Views:
    pixels = torch.stack([from_bytes(image) for image in images])
    depths = torch.zeros(len(images), *images.shape[1:3])
    return Views(pixels, cameras, depths, torch.ones_like(depths, dtype=torch.bool))


def _near_far(views: Views) -> Float[Tensor, " 2"]:
    size = ReadOptions(longest_side=MATCHED_SIDE).target_size(views.size)
    small = views.resized(size)

    def read(view: int) -> ViewPixels:
        image = small.images[view].permute(1, 2, 0).numpy()
        return ViewPixels(image, small.depths[view].numpy(), small.masks[view].numpy())

    measured = measure_near_far(SmallViews(small.cameras, read))
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
    poses = [
        rigid_c2w(torch.from_numpy(np.array(matrix[:3], np.float64)), f"c2w[{number}]")
        for number, matrix in enumerate(c2w)
    ]
    return torch.stack(poses)
