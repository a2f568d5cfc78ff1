"""Coarse while moving, sharp when still: which picture comes next."""

import math
import threading
from types import SimpleNamespace

import pytest
import torch

from apps.rendering.progressive import ProgressiveRenderer, Viewpoint


@pytest.fixture
def clock():
    return SimpleNamespace(now=0.0)


@pytest.fixture
def renderer(painted_scene, clock):
    """Every pixel takes a tenth of a millisecond."""

    class Slow(type(painted_scene)):
        meanwhile = staticmethod(lambda: None)
        """What happens while a picture is made."""

        def render(self, camera, size, source_indices, before_chunk=None):
            clock.now += 1e-4 * size[0] * size[1]
            self.meanwhile()
            return super().render(camera, size, source_indices, before_chunk)

    return ProgressiveRenderer(Slow(), 96, lambda: clock.now)


@pytest.fixture
def move(renderer):
    """Move client 1; heights of its pictures are appended to ``move.heights``."""

    def run(x=0.0):
        renderer.update_camera(1, viewpoint(x), lambda view: heights.append(view.depth.shape[0]))

    run.heights = heights = []
    return run


def viewpoint(x=0.0):
    c2w = torch.eye(4)
    c2w[0, 3], c2w[2, 3] = x, -4
    return Viewpoint(c2w, math.radians(60), 1.5)


def test_a_camera_is_the_same_at_every_size(painted_scene):
    small, size = viewpoint().at(20)
    large, _ = viewpoint().at(40)
    assert size == (20, 30)
    torch.testing.assert_close(small.intrinsics[:2] * 2, large.intrinsics[:2])
    half = math.atan(10 / small.intrinsics[1, 1].item())
    assert math.isclose(2 * half, math.radians(60), rel_tol=1e-5)


def test_waiting_for_sources_once_does_not_coarsen_what_follows(renderer, move, clock):
    delays = iter([0, 0, 60, 0])

    def wait():
        clock.now += next(delays)

    object.__setattr__(renderer.scene, "meanwhile", wait)
    for step in range(4):
        move(0.1 * step)
        renderer.step()
    assert move.heights == [24, 31, 31, 31]


def test_moving_cameras_get_coarse_pictures_and_still_ones_sharp_ones(renderer, move, clock):
    for step in range(4):
        move(0.1 * step)
        assert renderer.step() and not renderer.step()
    assert move.heights == [24, 31, 31, 31]
    clock.now += 1.0
    while renderer.step():
        pass
    assert move.heights[4:] == [62, 96]


def test_source_views_do_not_alternate_on_a_border(renderer, move, clock):
    (left,), (right,) = (nearest_of(renderer.scene, x) for x in (0.0, 0.5))
    low, high = 0.0, 0.5
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (
            (middle, high) if nearest_of(renderer.scene, middle) == (left,) else (low, middle)
        )
    for x in (0.0, low - 0.01, high + 0.01, low - 0.01, high + 0.01):
        clock.now += 0.05
        move(x)
        renderer.step()
    assert set(renderer.scene.rendered) == {left}
    # Farther on, or at rest, the nearest count.
    clock.now += 1.0
    renderer.step()
    assert renderer.scene.rendered[-1] == nearest_of(renderer.scene, high + 0.01)[0] != left
    move(0.5)
    renderer.step()
    assert renderer.scene.rendered[-1] == right


def nearest_of(scene, x):
    camera, size = viewpoint(x).at(24)
    return scene.choose_sources(camera[None], size)


def test_a_sharp_picture_is_given_up_when_the_camera_moves(renderer, move, clock):
    move()
    renderer.step()
    clock.now += 1.0
    object.__setattr__(renderer.scene, "meanwhile", lambda: move(0.5))
    assert renderer.step() and move.heights == [24]
    # A coarse one is shown all the same: a camera that never rests would get no picture.
    assert renderer.step() and move.heights == [24, 31]


def test_pictures_follow_the_latest_camera_and_sampling(renderer):
    shown = []
    for x in (0.5, 1.5):
        renderer.update_camera(1, viewpoint(x), shown.append)
    renderer.step()
    assert len(shown) == 1 and abs(shown[0].rgb[1, 0, 0] - (1.5 / 4 + 0.5)) < 1e-6
    renderer.set_scene(renderer.scene.with_sampling(1.0, 5.0, 4))
    assert renderer.step() and len(shown) == 2


def test_every_client_has_its_turn_and_removed_ones_have_none(renderer):
    order = []
    for client in (1, 2):
        renderer.update_camera(client, viewpoint(), lambda _, client=client: order.append(client))
    for _ in range(4):
        renderer.step()
        renderer.update_camera(1, viewpoint(), lambda _: order.append(1))
    assert order[:2] == [1, 2]
    for client in (1, 1, 2):
        renderer.remove_client(client)
    assert not renderer.step()


class Encoded:
    """Sources of a painted scene that can be read; others wait for ``go``."""

    def __init__(self, scene):
        self.go, self.prepared = threading.Event(), set()
        for name in ("is_prepared", "prepare", "render"):
            object.__setattr__(scene, name, getattr(self, name))
        self.scene = scene

    def is_prepared(self, sources):
        return tuple(sources) in self.prepared

    def prepare(self, sources):
        assert self.go.wait(20)
        self.prepared.add(tuple(sources))

    def render(self, camera, size, sources, before_chunk=None):
        self.prepared.add(tuple(sources))
        return type(self.scene).render(self.scene, camera, size, sources, before_chunk)


def test_nearer_sources_are_encoded_while_pictures_go_on(painted_scene, clock):
    """A viewer that waited for them would freeze."""
    encoded = Encoded(painted_scene)
    renderer = ProgressiveRenderer(painted_scene, 48, lambda: clock.now)
    shown = []
    renderer.update_camera(1, viewpoint(-2.0), shown.append)
    assert renderer.step() and painted_scene.rendered == [(0, 1)]
    renderer.update_camera(1, viewpoint(2.0), shown.append)
    assert renderer.step() and painted_scene.rendered[-1] == (0, 1)
    assert renderer.describe() == "encoding closer source views"
    clock.now += 1.0
    assert not renderer.step(), "nothing becomes sharp that is soon out of date"
    encoded.go.set()
    renderer._encoding.result(20)
    while renderer.step():
        clock.now += 1.0
    assert painted_scene.rendered[-1] == (7, 8) and shown[-1].depth.shape[0] == 48


def test_sources_that_a_moving_camera_will_come_to_are_encoded_before(painted_scene, clock):
    encoded = Encoded(painted_scene)
    encoded.go.set()
    renderer = ProgressiveRenderer(painted_scene, 48, lambda: clock.now)
    for x in (-2.0, -1.9, -1.8):
        renderer.update_camera(1, viewpoint(x), lambda view: None)
        renderer.step()
        clock.now += 0.05
    renderer._encoding.result(20)
    assert set(painted_scene.rendered) == {(0, 1)}
    # Two units a second: one second later it is at 0.2.
    (ahead,) = painted_scene.choose_sources(viewpoint(0.2).at(24)[0][None], (24, 36))
    assert ahead in encoded.prepared and ahead != (0, 1)


def test_a_picture_that_fails_costs_no_one_else_theirs(renderer):
    shown = []
    render = renderer.scene.render

    def fail(camera, *args):
        if camera.c2w[0, 3] > 1:
            raise RuntimeError("out of memory")
        return render(camera, *args)

    object.__setattr__(renderer.scene, "render", fail)
    for client, x in ((1, 1.5), (2, 0.0)):
        renderer.update_camera(client, viewpoint(x), lambda _, client=client: shown.append(client))
    while renderer.step():
        pass
    assert set(shown) == {2}
    renderer.update_camera(1, viewpoint(0.5), lambda _: shown.append(1))
    renderer.step()
    assert shown[-1] == 1


@pytest.mark.parametrize(
    ("fov", "aspect", "expected"),
    [(0.0, 1.5, (0.02, 1.5)), (4.0, 1e6, (2.8, 5.0)), (1.0, 0.0, (1.0, 0.2))],
)
def test_what_a_browser_says_is_brought_into_bounds(fov, aspect, expected):
    view = Viewpoint.bounded(torch.eye(4), fov, aspect)
    assert view is not None and (view.fov, view.aspect) == expected
    height, width = view.at(256)[1]
    assert height * width <= 256 * 256 * 5


@pytest.mark.parametrize("entry", [math.nan, math.inf, 1e30])
def test_cameras_that_make_no_sense_are_passed_over(entry):
    c2w = torch.eye(4)
    c2w[0, 3] = entry
    assert Viewpoint.bounded(c2w, 1.0, 1.5) is None
    assert Viewpoint.bounded(torch.eye(4), math.nan, 1.5) is None
