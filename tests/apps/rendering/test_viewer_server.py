"""Who may talk to the viewer, and what one message can do."""

import threading
import time

import msgspec.msgpack
import pytest
import viser
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from apps.rendering.config import ViewerConfig
from apps.rendering.viewer import Viewer
from apps.rendering.viewer_server import accepts, is_local

CAMERA = {
    "type": "ViewerCameraMessage",
    "wxyz": (1.0, 0.0, 0.0, 0.0),
    "position": (0.0, 0.0, -4.0),
    "fov": 0.8,
    "near": 0.01,
    "far": 100.0,
    "image_height": 48,
    "image_width": 64,
    "look_at": (0.0, 0.0, 1.0),
    "up_direction": (0.0, -1.0, 0.0),
}
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture
def viewer(painted_scene):
    viewer = Viewer(painted_scene, ViewerConfig(port=18773, height=32))
    stop = threading.Event()
    worker = threading.Thread(target=viewer.work, args=(stop,))
    worker.start()
    yield viewer
    assert worker.is_alive()
    stop.set()
    worker.join()
    viewer.close()


def dial(viewer, **settings):
    address = viewer.address.replace("http", "ws")
    protocol = [f"viser-v{viser.__version__}"]
    return connect(address, subprotocols=protocol, max_size=None, compression=None, **settings)


@pytest.mark.parametrize(
    "change",
    [
        {"fov": 0.0},
        {"fov": float("nan")},
        {"image_width": 10**6, "image_height": 1},
        {"image_height": 0},
        {"wxyz": (0.0, 0.0, 0.0, 0.0)},
        {"position": (1e300, 0.0, 0.0)},
    ],
)
def test_no_message_ends_the_viewer(viewer, painted_scene, change):
    with dial(viewer) as socket:
        # The first message of a client only connects it.
        for message in (CAMERA, CAMERA, {**CAMERA, **change}):
            socket.send(msgspec.msgpack.encode(message))
            time.sleep(0.3)
    count = len(painted_scene.rendered)
    with dial(viewer) as socket:
        for _ in range(2):
            socket.send(msgspec.msgpack.encode(CAMERA))
            time.sleep(0.3)
        deadline = time.monotonic() + 20
        while len(painted_scene.rendered) <= count:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_another_page_is_refused(viewer):
    with pytest.raises(InvalidStatus, match="403"):
        dial(viewer, origin="http://evil.example")
    with dial(viewer, origin=viewer.address):
        pass


@pytest.mark.parametrize(
    ("host", "origin", "local", "expected"),
    [
        ("127.0.0.1:8080", None, True, True),
        ("localhost:8080", "http://localhost:8080", True, True),
        ("[::1]:8080", "http://[::1]:8080", True, True),
        ("localhost:8080", "http://localhost:9999", True, False),
        ("localhost:8080", "null", True, False),
        ("evil.example:8080", "http://evil.example:8080", True, False),
        ("lab.example:8080", "http://lab.example:8080", False, True),
        ("lab.example:8080", "http://evil.example", False, False),
        (None, None, True, False),
    ],
)
def test_names_of_hosts_and_pages(host, origin, local, expected):
    given = {"Host": host, "Origin": origin}
    headers = Headers({name: value for name, value in given.items() if value is not None})
    assert accepts(headers, local) is expected


def test_names_of_this_machine():
    assert all(is_local(name) for name in ("localhost", "127.0.0.1", "127.1.2.3", "::1"))
    assert not any(is_local(name) for name in ("0.0.0.0", "192.168.1.4", "lab.example", ""))
