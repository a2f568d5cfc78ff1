"""Interactive viewer: rendered views of a dragged camera, source cameras, and a point cloud."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
import viser
from jaxtyping import UInt8
from viser.transforms import SO3

from apps.rendering.config import ViewerConfig
from apps.rendering.geometry import fuse_points, source_view_job, stack_renderings
from apps.rendering.geometry_files import PointCloud, read_points
from apps.rendering.open_scene import open_scene
from apps.rendering.path_recorder import PathRecorder
from apps.rendering.progressive import FAILURES, ProgressiveRenderer, Viewpoint
from apps.rendering.viewer_server import check_port, start_server
from models.scenes.renderable_scene import RenderableScene, RenderedView
from utils.camera_rig import describe_rig
from utils.figures import DepthRange, color_bar, depth_picture, robust_range
from utils.images import to_bytes

logger = logging.getLogger(__name__)

_CLOUD_HEIGHT = 64
_CLOUD_RENDERINGS = 8
_THUMBNAIL_HEIGHT = 96
_FRUSTUM_SCALE = 0.025
"""Size of a drawn frustum, relative to the distance of the cameras from their focus point."""
_BAR_HEIGHT = 160
_DISTANCE_AHEAD = 1.2
"""Distance of the viewer's camera in front of a source camera, in lengths of its frustum."""


def run_viewer(config: ViewerConfig) -> str:
    """Serve a scene until the user stops the program."""
    check_port(config.host, config.port)
    cloud = read_points(Path(config.points)) if config.points else None
    # The width of the browser's window is unknown; larger photographs would only encode slower.
    scene = open_scene(config.scene, config.model, (config.height, 1))
    viewer = Viewer(scene, config, cloud)
    logger.info("%s: open %s in a browser; Ctrl-C stops the viewer", scene.name, viewer.address)
    try:
        viewer.work(threading.Event())
    except KeyboardInterrupt:
        viewer.close()
    return "the viewer has stopped"


class Viewer:
    """A web server and the loop that renders for its clients."""

    def __init__(
        self, scene: RenderableScene, config: ViewerConfig, cloud: PointCloud | None = None
    ) -> None:
        """Start the server; ``work`` renders."""
        self.scene = scene
        self.renderer = ProgressiveRenderer(scene, config.height)
        self._cloud: viser.PointCloudHandle | None = None
        self._show_lock = threading.Lock()
        """Guards points and background images, which callbacks and the render loop both set."""
        self._rig = describe_rig(scene.cameras, scene.near_far)
        self._depth_range: DepthRange | None = None
        self._last_views: dict[int, RenderedView] = {}
        """Last rendered view by client id."""
        self.server = start_server(config.host, config.port, scene.name)
        self.address = f"http://{config.host}:{self.server.get_port()}"
        self.server.scene.set_up_direction(tuple(self._rig.up.tolist()))
        self._frustums = [self._add_frustum(index) for index in range(len(scene.cameras.c2w))]
        self._add_controls()
        self.server.gui.add_button("save image").on_click(self._save_image)
        self.recorder = PathRecorder(self.server, self.renderer)
        self._idle_work = iter(()) if cloud else self._compute_cloud()
        if cloud:
            points = cloud.points.double() / scene.unit.factor - scene.origin
            self._show_cloud(PointCloud(points.float(), cloud.colors))
        self.server.on_client_connect(self._on_connect)
        self.server.on_client_disconnect(self._on_disconnect)

    def work(self, stop: threading.Event) -> None:
        """Render until ``stop`` is set: views first, then recorded videos, then the point cloud."""
        while not stop.is_set():
            busy = self.renderer.step() or self.recorder.step()
            if self.status.content != (status := self.renderer.describe()):
                self.status.content = status
            if not busy and not self._extend_cloud():
                stop.wait(0.05)

    def _extend_cloud(self) -> bool:
        """Do one step of the point cloud; return whether there was one."""
        try:
            return next(self._idle_work, None) is not None
        except FAILURES:
            logger.exception("the point cloud could not be computed")
            self._idle_work = iter(())
            return False

    def close(self) -> None:
        """Stop the server."""
        self.renderer.close()
        self.server.stop()

    def _add_frustum(self, index: int) -> viser.CameraFrustumHandle:
        c2w, (height, width) = self.scene.cameras.c2w[index], self.scene.image_size
        stride = max(1, height // _THUMBNAIL_HEIGHT)
        handle = self.server.scene.add_camera_frustum(
            f"/sources/{index}",
            self._field_of_view(index),
            width / height,
            scale=_FRUSTUM_SCALE * self._rig.distance,
            image=to_bytes(self.scene.images([index])[0, :, ::stride, ::stride]),
            wxyz=SO3.from_matrix(c2w[:3, :3].double().numpy()).wxyz,
            position=c2w[:3, 3].numpy(),
        )
        handle.on_click(self._move_to_source)
        return handle

    def _distance_ahead(self) -> float:
        """Return the distance in front of a source camera at which its frustum hides nothing."""
        height, width = self.scene.image_size
        # Viser draws all frustums of one scale with the same volume, so those of long lenses are
        # long.
        length = (3 * height / width / math.tan(0.5 * self._field_of_view(0)) ** 2) ** (1 / 3)
        return _DISTANCE_AHEAD * length * _FRUSTUM_SCALE * self._rig.distance

    def _field_of_view(self, index: int) -> float:
        """Return a source camera's vertical field of view, in radians."""
        focal = self.scene.cameras.intrinsics[index, 1, 1].item()
        return 2 * math.atan(0.5 * self.scene.image_size[0] / focal)

    def _add_controls(self) -> None:
        gui, scene = self.server.gui, self.scene
        near_far = (scene.near_far * scene.unit.factor).tolist()
        # Longer numbers would overlap below the sliders.
        near, far = (float(f"{value:.3g}") for value in near_far)
        self.status = gui.add_markdown("waiting")
        self.shown = gui.add_dropdown("show", ("colour", "depth", "points"))
        self._bar = gui.add_image(np.zeros((1, 1, 3), np.uint8), visible=False)
        cameras = gui.add_checkbox("source cameras", initial_value=True)
        view = math.degrees(self._field_of_view(0))
        self.view_angle = gui.add_slider("field of view", 5, 120, 1, min(max(round(view), 5), 120))
        step = float(f"{(far - near) / 200:.1g}")
        least = max(float(f"{near / 4:.2g}"), 1e-3)
        hint, samples = f"in {scene.unit.name}", scene.n_samples
        self.near = gui.add_slider("near", least, far, step, near, hint=hint)
        self.far = gui.add_slider("far", near, 2 * far, step, far, hint=hint)
        self.samples = gui.add_slider("samples per ray", 2, 2 * samples + 2, 1, samples)
        self.shown.on_update(lambda _: self._update_shown())
        self.view_angle.on_update(self._update_view_angle)
        for slider in (self.near, self.far, self.samples):
            slider.on_update(lambda _: self._update_sampling())

        @cameras.on_update
        def _(_: object) -> None:
            for handle in self._frustums:
                handle.visible = bool(cameras.value)

    def _update_shown(self) -> None:
        points = self.shown.value == "points"
        self._bar.visible = self.shown.value == "depth"
        with self._show_lock:
            if self._cloud is not None:
                self._cloud.visible = points
            if points:
                for client in self.server.get_clients().values():
                    client.scene.set_background_image(None)
        self.renderer.refresh()

    def _update_sampling(self) -> None:
        factor = self.scene.unit.factor
        near, far = slider_value(self.near) / factor, slider_value(self.far) / factor
        if near < far:
            self._depth_range = None
            samples = round(slider_value(self.samples))
            self.renderer.set_scene(self.scene.with_sampling(near, far, samples))

    def _update_view_angle(self, event: viser.GuiEvent[Any]) -> None:
        if event.client is not None:
            event.client.camera.fov = math.radians(slider_value(self.view_angle))

    def _save_image(self, event: viser.GuiEvent[Any]) -> None:
        """Send the client its last rendered image as PNG."""
        client = event.client
        if client is not None and client.client_id in self._last_views:
            image = self._image(self._last_views[client.client_id])
            content = iio.imwrite("<bytes>", image, extension=".png")
            client.send_file_download(f"{self.scene.name}.png", content)

    def _on_connect(self, client: viser.ClientHandle) -> None:
        """Place a new client's camera at the middle source camera, in front of its frustum."""
        rig, centers = self._rig, self.scene.cameras.centers
        middle = centers[(centers - centers.mean(0)).norm(dim=-1).argmin()]
        position = torch.lerp(middle.double(), rig.focus, self._distance_ahead() / rig.distance)
        client.camera.up_direction = tuple(rig.up.tolist())
        client.camera.position = tuple(position.tolist())
        client.camera.look_at = tuple(rig.focus.tolist())
        client.camera.fov = self._field_of_view(0)
        client.camera.on_update(lambda camera: self._update_camera(client, camera))

    def _on_disconnect(self, client: viser.ClientHandle) -> None:
        self.renderer.remove_client(client.client_id)
        self._last_views.pop(client.client_id, None)
        self.recorder.remove_client(client.client_id)

    def _update_camera(self, client: viser.ClientHandle, camera: viser.CameraHandle) -> None:
        """Update a client's camera, or keep the last one if the new values are invalid."""
        c2w = torch.eye(4)
        try:
            c2w[:3, :3] = torch.from_numpy(SO3(np.asarray(camera.wxyz)).as_matrix())
            c2w[:3, 3] = torch.from_numpy(np.array(camera.position))
            view = Viewpoint.bounded(c2w, float(camera.fov), float(camera.aspect))
        except (ValueError, TypeError, ArithmeticError, AssertionError, RuntimeError):
            return
        if view is not None:
            self.renderer.update_camera(
                client.client_id, view, lambda rendered: self._show(client, view, rendered)
            )

    def _show(self, client: viser.ClientHandle, viewpoint: Viewpoint, view: RenderedView) -> None:
        self._last_views[client.client_id] = view
        self.recorder.views[client.client_id] = viewpoint
        with self._show_lock:
            if self.shown.value != "points":
                client.scene.set_background_image(self._image(view), "jpeg", jpeg_quality=85)

    def _image(self, view: RenderedView) -> UInt8[np.ndarray, "height width 3"]:
        """Return colours, or depth in a range that is fixed until near or far change."""
        if self.shown.value != "depth":
            return to_bytes(view.rgb)
        if self._depth_range is None:
            self._depth_range = robust_range([(view.depth, view.solid)])
            self._bar.image = to_bytes(color_bar(_BAR_HEIGHT, self._depth_range, self.scene.unit))
        return to_bytes(depth_picture(view.depth, view.solid, self._depth_range))

    def _move_to_source(self, event: viser.SceneNodePointerEvent) -> None:
        """Move the client's camera to the clicked source camera, in front of its frustum."""
        camera, handle = event.client.camera, event.target
        forward = SO3(np.asarray(handle.wxyz)).as_matrix()[:, 2]
        with event.client.atomic():
            camera.wxyz = handle.wxyz
            camera.position = handle.position + self._distance_ahead() * forward

    def _compute_cloud(self) -> Iterator[bool]:
        """Render one small depth map per step and show the points fused so far."""
        height, width = self.scene.image_size
        size = (_CLOUD_HEIGHT, max(1, round(_CLOUD_HEIGHT * width / height)))
        job = source_view_job(self.scene, size, _CLOUD_RENDERINGS)
        views: list[RenderedView] = []
        for frame in range(len(job)):
            views.append(job.render(frame))
            if frame:
                renderings = stack_renderings(job.path.cameras[: frame + 1], views)
                # Small depth maps agree less well than large ones.
                self._show_cloud(fuse_points(renderings, tolerance=0.03, min_agreeing=1))
            yield True

    def _show_cloud(self, cloud: PointCloud) -> None:
        with self._show_lock:
            # Viser removes the earlier point cloud of this name.
            self._cloud = self.server.scene.add_point_cloud(
                "/points",
                cloud.points.numpy(),
                cloud.color_bytes,
                point_size=0.004 * self._rig.distance,
                visible=self.shown.value == "points",
            )


def slider_value(slider: viser.GuiSliderHandle[Any]) -> float:
    """Return the value of a slider, clamped to its bounds whatever the browser sent."""
    try:
        value = float(slider.value)
    except (TypeError, ValueError):
        value = math.nan
    return min(max(value, slider.min), slider.max) if math.isfinite(value) else float(slider.min)
