"""The viewer as a browser sees it: headless Chromium, where there is one."""

import base64
import io
import json
import math
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import viser
from PIL import Image
from websockets.sync.client import connect

from apps.rendering.config import ViewerConfig
from apps.rendering.geometry_files import PointCloud, read_points, write_points
from apps.rendering.viewer import Viewer
from apps.rendering.viewer_server import check_port
from utils.cameras import LengthUnit
from utils.errors import UserError

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = [
    *("--headless=new", "--no-sandbox", "--remote-debugging-port=0", "--window-size=640,480"),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-dev-shm-usage", "--remote-allow-origins=*"),
]
# The event loop of the server's thread is closed by the interpreter's exit.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


class Page:
    """One page of a browser, spoken to through Chromium's debugging protocol."""

    def __init__(self, socket):
        self.socket, self.number = socket, 0

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self.socket.recv(timeout=60))
            if answer.get("id") == self.number:
                return answer["result"]

    def text(self, expression):
        return self.call("Runtime.evaluate", expression=expression)["result"].get("value")

    def screenshot(self):
        data = base64.b64decode(self.call("Page.captureScreenshot")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)

    def drag(self, xs, y):
        kinds = ["mousePressed", *["mouseMoved"] * (len(xs) - 2), "mouseReleased"]
        for kind, x in zip(kinds, xs, strict=True):
            clicks = {} if kind == "mouseMoved" else {"clickCount": 1}
            event = {"type": kind, "x": x, "y": y, "button": "left", **clicks}
            event["buttons"] = int(kind != "mouseReleased")
            self.call("Input.dispatchMouseEvent", **event)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return value


@pytest.fixture
def viewer(painted_scene):
    viewer = Viewer(painted_scene, ViewerConfig(port=18573, height=48))
    stop = threading.Event()
    worker = threading.Thread(target=viewer.work, args=(stop,))
    worker.start()
    yield viewer
    stop.set()
    worker.join()
    viewer.close()


@pytest.fixture
def page(viewer, tmp_path):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", viewer.address]
    with open(tmp_path / "said", "w") as said:
        browser = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        found = wait_for(
            lambda: re.search(r"listening on ws://([\d.:]+)/", (tmp_path / "said").read_text())
        )

        def target():
            with urllib.request.urlopen(f"http://{found[1]}/json", timeout=10) as answer:
                pages = json.load(answer)
            return next((p for p in pages if p["url"].startswith(viewer.address)), None)

        with connect(wait_for(target)["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Page(socket)
    finally:
        browser.terminate()
        browser.wait(30)


@pytest.fixture
def client():
    """A browser's side of the connection."""
    client = MagicMock(spec=viser.ClientHandle)
    client.client_id, client.scene = 7, MagicMock()
    client.camera = MagicMock(spec=viser.CameraHandle)
    return client


def test_a_dragged_camera_changes_the_picture(viewer, page, painted_scene):
    wait_for(lambda: viewer.server.get_clients() and len(painted_scene.rendered) > 3)
    wait_for(lambda: "samples per ray" in (page.text("document.body.innerText") or ""))

    def painted():
        """Return the mean colour beside the controls; the painted scene has no blue."""
        color = page.screenshot()[250:300, 60:140].reshape(-1, 3).mean(0)
        return color if color[2] < 30 else None

    before = wait_for(lambda: painted() is not None) and painted()
    assert before[1] > 100
    page.drag([*range(200, 241, 5), 240], 220)
    wait_for(lambda: (now := painted()) is not None and abs(now - before).max() > 15)


def test_the_page_loads_and_everything_is_in_it(viewer):
    with urllib.request.urlopen(viewer.address, timeout=20) as answer:
        assert answer.status == 200 and b"<html" in answer.read().lower()
    assert viewer.address.startswith("http://127.0.0.1:")
    assert len(viewer._frustums) == 9
    # Nobody looks: the points are made meanwhile.
    wait_for(lambda: viewer._cloud is not None)
    assert len(viewer._cloud.points) > 500 and not viewer._cloud.visible


def test_a_connection_that_a_browser_does_not_need_is_no_failure(viewer, caplog):
    with socket.create_connection(("127.0.0.1", viewer.server.get_port())):
        pass
    with urllib.request.urlopen(viewer.address, timeout=20) as answer:
        assert answer.status == 200
    wait_for(lambda: viewer._cloud is not None)
    assert not [record for record in caplog.records if "handshake" in record.getMessage()]


def test_points_that_fail_do_not_end_the_viewer(painted_scene):
    fail = MagicMock(side_effect=RuntimeError("out of memory"))
    object.__setattr__(painted_scene, "render", fail)
    viewer, stop = Viewer(painted_scene, ViewerConfig(port=18683)), threading.Event()
    worker = threading.Thread(target=viewer.work, args=(stop,))
    worker.start()
    wait_for(lambda: fail.called)
    time.sleep(0.2)
    assert worker.is_alive() and viewer._cloud is None
    stop.set()
    worker.join()
    viewer.close()


@pytest.mark.parametrize("focal", [15.0, 30.0, 200.0])
def test_the_first_view_is_past_the_frustums_picture(viewer, client, focal, monkeypatch):
    """Long lenses have long frustums, whose pictures would hide everything."""
    half = 12 / focal
    monkeypatch.setattr(viewer, "_field_of_view", lambda place: 2 * math.atan(half))
    # As viser draws them: of a volume that the scale alone decides.
    plane = viewer._frustums[4].scale / (half * half * 32 / 24 / 3) ** (1 / 3)
    viewer._on_connect(client)
    distance = client.camera.position[2] + 4
    assert plane < distance < 1.5 * plane


def test_controls_change_what_is_rendered(viewer, client):
    images, camera = [], client.camera
    client.scene.set_background_image = lambda image, *_, **__: images.append(image)
    camera.position, camera.wxyz = np.array([1.0, 0, -4]), np.array([1.0, 0, 0, 0])
    camera.fov, camera.aspect = 1.0, 1.5
    viewer._update_camera(client, camera)
    wait_for(lambda: images)
    assert abs(images[-1][0, 0, 1] / 255 - 0.75) < 0.02
    viewer.samples.value = 5
    viewer.near.value = 2.0
    wait_for(lambda: viewer.renderer.scene.n_samples == 5)
    wait_for(lambda: viewer.renderer.scene.near_far[0] == 2.0)
    viewer.shown.value = "depth"
    # Pixels without a surface are marked grey.
    wait_for(lambda: images[-1][0, 0].tolist() in ([89] * 3, [140] * 3))
    viewer.shown.value = "points"
    wait_for(lambda: viewer._cloud is not None and viewer._cloud.visible)


def test_points_are_shown_while_they_grow(painted_scene, monkeypatch):
    """A control moved between the old points' removal and the new ones' arrival ends nothing."""
    cloud = PointCloud(torch.rand(300, 3), torch.rand(300, 3))
    viewer = Viewer(painted_scene, ViewerConfig(port=18674), cloud)
    add, failures = viewer.server.scene.add_point_cloud, []

    def show():
        try:
            viewer.shown.value = "points"
        except RuntimeError as error:
            failures.append(error)

    control = threading.Thread(target=show)

    def add_slowly(*arguments, **settings):
        handle = add(*arguments, **settings)
        control.start()
        control.join(0.2)
        return handle

    monkeypatch.setattr(viewer.server.scene, "add_point_cloud", add_slowly)
    viewer._show_cloud(cloud)
    control.join()
    viewer.close()
    assert not failures and viewer._cloud.visible


def test_a_port_that_is_taken_is_refused_with_another():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: cannot listen there .* another --po"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_sliders_and_points_from_a_file_are_in_the_unit_of_the_files(painted_scene, tmp_path):
    object.__setattr__(painted_scene, "unit", LengthUnit("mm", 200.0))
    cloud = PointCloud(torch.rand(300, 3), torch.rand(300, 3))
    write_points(tmp_path / "points.ply", cloud, painted_scene)
    again = read_points(tmp_path / "points.ply")
    torch.testing.assert_close(again.points.float() / 200, cloud.points)
    viewer = Viewer(painted_scene, ViewerConfig(port=18673), again)
    assert next(viewer._idle_work, None) is None
    np.testing.assert_allclose(viewer._cloud.points, cloud.points.numpy(), atol=2e-3)
    assert (viewer.near.value, viewer.far.value) == (200.0, 1600.0)
    viewer.near.value = 400.0
    wait_for(lambda: viewer.renderer.scene.near_far.tolist() == [2.0, 8.0])
    viewer.close()
    (tmp_path / "damaged.ply").write_bytes(b"ply\nnonsense")
    for name in ("absent.ply", "damaged.ply"):
        with pytest.raises(UserError, match=name):
            read_points(tmp_path / name)
