"""The order of work on an accelerator, walked through on the CPU."""

import inspect
from collections import Counter
from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.generator import ProceduralGenerator
from datasets.procedural.renderer import kernels, tracing
from datasets.procedural.renderer.rendering import render_views
from datasets.procedural.renderer.sphere_tracing import DistanceField
from datasets.procedural.worlds import scene
from datasets.procedural.worlds.planning import PreparedBatch

QUALITY = ProceduralConfig(samples=2, rays_per_chunk=1500)


@pytest.fixture(autouse=True)
def few_slots(monkeypatch):
    """Set limits that are no multiples of what one kernel takes, and few steps."""
    monkeypatch.setattr(scene, "LIMITS", {"convex": 31, "card": 16, "blob": 11})
    monkeypatch.setattr(tracing, "STEPS", 2)
    monkeypatch.setattr(tracing, "SHADOW_STEPS", 2)


def prepared_scenes(scenes: int, views: int = 1, size=(24, 30), **config) -> PreparedBatch:
    return ProceduralGenerator(ProceduralConfig(**config)).prepare(range(scenes), views, size, 0.5)


@torch.no_grad()
def render(batch: PreparedBatch) -> torch.Tensor:
    return render_views(batch.scenes, batch.cameras, batch.lamps, batch.seeds, batch.size, QUALITY)


@pytest.fixture
def as_accelerator(monkeypatch):
    """Take the accelerator's branches, with kernels that are not compiled."""

    def switch():
        monkeypatch.setattr(kernels, "on_host", lambda tensor: False)
        monkeypatch.setattr(kernels, "compiled", lambda function: function)

    return switch


def test_the_running_smooth_minimum_is_the_smooth_minimum(as_accelerator):
    scenes = prepared_scenes(6).scenes
    points = 0.4 * torch.randn(6, 400, 3, generator=torch.Generator().manual_seed(0))
    expected = DistanceField(scenes, points)(points)
    as_accelerator()
    found = DistanceField(scenes, points)(points)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_an_image_is_the_same_in_either_order_of_work(as_accelerator):
    batch = prepared_scenes(2)
    expected = render(batch)
    as_accelerator()
    found = render(batch)
    torch.testing.assert_close(found[..., 3], expected[..., 3], rtol=1e-3, atol=1e-3)
    assert (found[..., :3] - expected[..., :3]).abs().mean() < 1e-4


def test_nothing_waits_for_an_accelerator(as_accelerator, monkeypatch):
    monkeypatch.setattr(scene, "LIMITS", {"convex": 6, "card": 3, "blob": 5})
    batch = prepared_scenes(1, scene_types=("studio",))
    as_accelerator()
    # Fake tensors have no values: whatever asks for one, or for their number, raises.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = replace(
            batch,
            scenes=batch.scenes.map(mode.from_tensor),
            lamps=mode.from_tensor(batch.lamps),
            seeds=mode.from_tensor(batch.seeds),
        )
        rendering = render(fake)
    assert rendering.shape == (1, 1, 24, 30, 4)


@pytest.fixture
def graphs(as_accelerator, monkeypatch):
    """Count the graphs of each kernel as Dynamo hands them to a compiler."""
    count, compiled_kernels = Counter(), {}

    def compiled(function):
        def backend(graph, inputs):
            count[function.__qualname__] += 1
            return graph.forward

        if function not in compiled_kernels:
            # The bare code: what checks shapes in tests is the same code for every kernel.
            bare = inspect.unwrap(function)
            compiled_kernels[function] = torch.compile(bare, fullgraph=True, backend=backend)
        return compiled_kernels[function]

    def switch():
        as_accelerator()
        monkeypatch.setattr(kernels, "compiled", compiled)

    jaxtyping.config.update("jaxtyping_disable", True)
    torch._dynamo.reset()
    yield count, switch
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


def test_kernels_are_compiled_for_one_scene_and_for_many(graphs):
    count, switch = graphs
    shapes = ((3, 1, (8, 10)), (2, 1, (7, 5)), (5, 2, (9, 6)), (4, 1, (6, 6)), (6, 1, (5, 4)))
    many = [prepared_scenes(*shape) for shape in shapes]
    single = [prepared_scenes(1, 1, (8, 8)), prepared_scenes(1, 2, (9, 7))]
    switch()
    for batch in many:
        render(batch)
    assert len(count) > 7 and set(count.values()) == {1}, count
    for batch in single:
        render(batch)
    assert max(count.values()) <= 3, count


def test_distances_are_compiled_for_one_scene_and_for_many_and_take_slices(graphs):
    count, switch = graphs
    scenes = {number: prepared_scenes(number).scenes for number in (2, 3, 6, 1)}
    switch()
    for number, tensors in scenes.items():
        for rays in (2, 6, 7):
            points = torch.rand(number, 2 * rays, 3)[:, ::2]
            assert DistanceField(tensors, points)(points).isfinite().all()
    assert count == {"_blend_in": 2, "_blended": 2}
