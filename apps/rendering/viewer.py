"""A scene in the browser: source cameras, points, and what the camera you drag sees."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import trimesh
import viser

from apps.rendering.config import RendererChoice, SceneChoice
from apps.rendering.cross_fade import render_faded
from apps.rendering.fusion import PointCloud, fuse_points
from apps.rendering.geometry import gather, source_job
from apps.rendering.open_scene import open_scene
from apps.rendering.progressive import LiveRenderer, Viewpoint
from apps.rendering.scene import Picture, RenderableScene
from utils.depth_pictures import depth_picture, robust_range
from utils.errors import UserError
from utils.images import to_bytes
from utils.pose_interpolation import quaternions, rotation_matrices
from utils.surroundings import survey

logger = logging.getLogger(__name__)

_CLOUD_HEIGHT = 64
_CLOUD_RENDERINGS = 8
_CLOUD_TOLERANCE = 0.03
"""Depths of such small renderings agree less well than large ones."""
_THUMBNAIL = 96
_FRUSTUM = 0.025
"""Size of a drawn frustum, relative to the distance of the cameras from what they look at."""
_AHEAD = 1.2
"""How far from a source camera one looks at the scene, in lengths of its frustum."""
_IDLE_SECONDS = 0.05
_SHOWN = ("colour", "depth", "points")


@dataclass(frozen=True)
class ViewerChoice:
    """Where the viewer is, and how fine its pictures are."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets other machines in"""
    port: int = 8080
    """Port to listen on; the next free one if it is taken"""
    height: int = 256
    """Rows of the sharpest picture; columns follow the browser's window"""
    points: str = ""
    """Point cloud (.ply) of apps.export_geometry to show; none: a coarse one is made while idle"""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            ValueError: Names the value.
        """
        if not 0 < self.port < 65536 or not 16 <= self.height <= 4096:
            raise ValueError(f"port={self.port} must be a port, height={self.height} in [16, 4096]")


@dataclass(frozen=True)
class ViewerConfig:
    """All settings of ``view.py``."""

    scene: SceneChoice = field(default_factory=SceneChoice)
    model: RendererChoice = field(default_factory=RendererChoice)
    viewer: ViewerChoice = field(default_factory=ViewerChoice)


def run_viewer(config: ViewerConfig) -> str:
    """Serve a scene until somebody stops the program.

    Raises:
        UserError: Bad input, or the address cannot be used.
    """
    choice = config.viewer
    cloud = read_points(Path(choice.points)) if choice.points else None
    # Photographs finer than the sharpest picture would cost a slow machine seconds to encode. Its
    # rows decide alone: how wide the browser's window will be is not known.
    scene = open_scene(config.scene, config.model, (choice.height, 1))
    viewer = Viewer(scene, choice, cloud)
    logger.info("%s: open %s in a browser; Ctrl-C ends it", scene.name, viewer.address)
    try:
        viewer.work(threading.Event())
    except KeyboardInterrupt:
        viewer.stop()
    return "the viewer has ended"


def read_points(path: Path) -> PointCloud:
    """Read a coloured point cloud.

    Raises:
        UserError: The file is missing or holds no points.
    """
    try:
        cloud = trimesh.load(path)
        points = torch.from_numpy(np.array(cloud.vertices, np.float32))  # pyright: ignore
        colors = torch.from_numpy(np.array(cloud.colors)[:, :3] / 255).float()  # pyright: ignore
    except (OSError, ValueError, AttributeError, IndexError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as a coloured point cloud ({error})") from error
    return PointCloud(points, colors)


class Viewer:
    """A server for browsers, and the thread that renders for them."""

    def __init__(
        self, scene: RenderableScene, choice: ViewerChoice, cloud: PointCloud | None = None
    ) -> None:
        """Start to serve; nothing is rendered before ``work``.

        Raises:
            UserError: The address cannot be used.
        """
        self.scene = scene
        self.live = LiveRenderer(scene, choice.height)
        self._cloud: viser.PointCloudHandle | None = None
        self._around = survey(scene.cameras, scene.near_far)
        try:
            self.server = viser.ViserServer(choice.host, choice.port, scene.name, verbose=False)
        except OSError as error:
            raise UserError(
                f"--host {choice.host} --port {choice.port}: cannot listen there ({error.strerror})"
            ) from error
        self.address = f"http://{choice.host}:{self.server.get_port()}"
        self.server.scene.set_up_direction(tuple(self._around.up.tolist()))
        self._frustums = self._add_cameras()
        self._add_controls()
        self._idle_work = iter(()) if cloud else self._make_cloud()
        if cloud:
            scaled = PointCloud(cloud.points / scene.unit.factor, cloud.colors)
            self._show_cloud(scaled)
        self.server.on_client_connect(self._welcome)
        self.server.on_client_disconnect(lambda client: self.live.forget(client.client_id))

    def work(self, stop: threading.Event) -> None:
        """Render until told to stop: for those who look, and if nobody waits, the points."""
        while not stop.is_set():
            if not self.live.step() and next(self._idle_work, None) is None:
                stop.wait(_IDLE_SECONDS)

    def stop(self) -> None:
        """Close the server."""
        self.server.stop()

    def _add_cameras(self) -> list[viser.CameraFrustumHandle]:
        cameras, (height, width) = self.scene.cameras, self.scene.image_size
        turns = quaternions(cameras.c2w[:, :3, :3].double())
        stride = max(1, height // _THUMBNAIL)
        handles = []
        for place in range(len(cameras.c2w)):
            image = self.scene.images([place])[0, :, ::stride, ::stride]
            handle = self.server.scene.add_camera_frustum(
                f"/sources/{place}",
                self._field_of_view(place),
                width / height,
                scale=_FRUSTUM * self._around.distance,
                image=to_bytes(image),
                wxyz=tuple(turns[place].tolist()),
                position=tuple(cameras.centers[place].tolist()),
            )
            handle.on_click(self._jump)
            handles.append(handle)
        return handles

    def _ahead(self) -> float:
        """Return how far ahead of a source camera its frustum hides nothing any more."""
        height, width = self.scene.image_size
        half = math.tan(0.5 * self._field_of_view(0))
        # Viser gives all frustums of one scale the same volume: those of long lenses are long.
        length = (3 / (half * half * width / height)) ** (1 / 3)
        return _AHEAD * length * _FRUSTUM * self._around.distance

    def _field_of_view(self, place: int) -> float:
        """Return a source's vertical field of view, in radians."""
        focal = self.scene.cameras.intrinsics[place, 1, 1].item()
        return 2 * math.atan(0.5 * self.scene.image_size[0] / focal)

    def _add_controls(self) -> None:
        gui, scene = self.server.gui, self.scene
        shown = (scene.near_far * scene.unit.factor).tolist()
        # Few digits, or they cover each other under the sliders.
        near, far = (float(f"{value:.3g}") for value in shown)
        unit = f"in {scene.unit.name}"
        self.shown = gui.add_dropdown("show", _SHOWN)
        cameras = gui.add_checkbox("source cameras", initial_value=True)
        step = float(f"{(far - near) / 200:.1g}")
        least = max(float(f"{near / 4:.2g}"), 1e-3)
        self.near = gui.add_slider("near", least, far, step, near, hint=unit)
        self.far = gui.add_slider("far", near, 2 * far, step, far, hint=unit)
        samples = scene.n_samples
        self.samples = gui.add_slider("samples on a ray", 2, max(64, samples), 1, samples)
        self.shown.on_update(lambda _: self._choose_shown())
        for slider in (self.near, self.far, self.samples):
            slider.on_update(lambda _: self._choose_sampling())

        @cameras.on_update
        def _(_: object) -> None:
            for handle in self._frustums:
                handle.visible = cameras.value

    def _choose_shown(self) -> None:
        points = self.shown.value == "points"
        if self._cloud is not None:
            self._cloud.visible = points
        if points:
            for client in self.server.get_clients().values():
                client.scene.set_background_image(None)
        self.live.refresh()

    def _choose_sampling(self) -> None:
        factor = self.scene.unit.factor
        near, far = self.near.value / factor, self.far.value / factor
        if near < far:
            samples = int(self.samples.value)
            self.live.use(self.scene.with_sampling(near, far, samples))

    def _welcome(self, client: viser.ClientHandle) -> None:
        around = self._around
        distances = (self.scene.cameras.centers - self.scene.cameras.centers.mean(0)).norm(dim=-1)
        middle = self.scene.cameras.centers[distances.argmin()]
        client.camera.up_direction = tuple(around.up.tolist())
        # In front of its frustum, whose picture would hide everything.
        middle = torch.lerp(middle.double(), around.focus, self._ahead() / around.distance)
        client.camera.position = tuple(middle.tolist())
        client.camera.look_at = tuple(around.focus.tolist())
        client.camera.fov = self._field_of_view(0)
        client.camera.on_update(lambda camera: self._moved(client, camera))

    def _moved(self, client: viser.ClientHandle, camera: viser.CameraHandle) -> None:
        c2w = torch.eye(4)
        turn = torch.from_numpy(np.asarray(camera.wxyz, np.float32).copy())
        c2w[:3, :3] = rotation_matrices(turn)
        c2w[:3, 3] = torch.from_numpy(np.asarray(camera.position, np.float32).copy())
        viewpoint = Viewpoint(c2w, float(camera.fov), float(camera.aspect))
        self.live.watch(client.client_id, viewpoint, lambda picture: self._show(client, picture))

    def _show(self, client: viser.ClientHandle, picture: Picture) -> None:
        if self.shown.value == "points":
            return
        image = picture.rgb
        if self.shown.value == "depth":
            shown = robust_range([(picture.depth, picture.solid)])
            image = depth_picture(picture.depth, picture.solid, shown)
        client.scene.set_background_image(to_bytes(image), "jpeg", jpeg_quality=85)

    def _jump(self, event: viser.SceneNodePointerEvent) -> None:
        """Look through the source camera that was clicked, from in front of its frustum."""
        camera, handle = event.client.camera, event.target
        forward = rotation_matrices(torch.from_numpy(np.asarray(handle.wxyz)))[:, 2].numpy()
        with event.client.atomic():
            camera.wxyz = handle.wxyz
            camera.position = handle.position + self._ahead() * forward

    def _make_cloud(self) -> Iterator[bool]:
        """Render small depths, one with each step, and show what they agree on."""
        height, width = self.scene.image_size
        size = (_CLOUD_HEIGHT, max(1, round(_CLOUD_HEIGHT * width / height)))
        job = source_job(self.scene, size, _CLOUD_RENDERINGS)
        pictures = []
        for frame in range(len(job)):
            pictures.append(
                render_faded(self.scene, job.path.cameras[frame], size, job.sources[frame])
            )
            yield True
        agreeing = min(1, len(job) - 1)
        self._show_cloud(fuse_points(gather(job, pictures), _CLOUD_TOLERANCE, agreeing))

    def _show_cloud(self, cloud: PointCloud) -> None:
        self._cloud = self.server.scene.add_point_cloud(
            "/points",
            cloud.points.numpy(),
            (cloud.colors.clamp(0, 1) * 255).round().byte().numpy(),
            point_size=0.004 * self._around.distance,
            visible=self.shown.value == "points",
        )
