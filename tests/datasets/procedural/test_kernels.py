"""The order of work on an accelerator, walked through on the CPU."""

import inspect
from collections import Counter
from dataclasses import replace

import jaxtyping
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from datasets.procedural import ProceduralConfig, ProceduralGenerator, fusing
from datasets.procedural.generator import PreparedBatch
from datasets.procedural.marching import distance, relief_distance
from datasets.procedural.nearest import nearest_closed_form
from datasets.procedural.render import Rendering
from datasets.procedural.tables import SceneTables

# The limits are no multiples of what one kernel takes.
CONFIG = ProceduralConfig(
    samples=2,
    march_steps=2,
    shadow_steps=2,
    max_convex=31,
    max_cards=16,
    max_blobs=11,
    rays_per_chunk=1500,
)


def prepared_scenes(scenes: int, views: int = 1, size=(24, 30)) -> PreparedBatch:
    return ProceduralGenerator(CONFIG).prepare(range(scenes), views, size, 0.5)


def render_together(batch: PreparedBatch) -> Rendering:
    moved = (batch.scenes, batch.cameras, batch.lights, batch.seeds)
    with torch.no_grad():
        return ProceduralGenerator(CONFIG)._render_together(*moved, batch.size)[0]


@pytest.fixture
def as_accelerator(monkeypatch):
    """Take the accelerator's branches, with pieces that are not compiled."""

    def switch():
        monkeypatch.setattr(fusing, "on_host", lambda tensor: False)
        monkeypatch.setattr(fusing, "compiled", lambda function: function)

    return switch


def random_rays(scenes: SceneTables) -> tuple[torch.Tensor, torch.Tensor]:
    noise = torch.Generator().manual_seed(0)
    count = len(scenes.blob_blend)
    origins = torch.tensor([2.0, -2.0, 1.5]).expand(count, 400, 3)
    return origins, 0.4 * torch.randn(count, 400, 3, generator=noise) - origins


def test_the_running_nearest_is_the_nearest(as_accelerator):
    scenes = prepared_scenes(3).scenes
    origins, directions = random_rays(scenes)
    expected = nearest_closed_form(scenes, origins, directions, origins[:, 0], 0.0)
    as_accelerator()
    found = nearest_closed_form(scenes, origins, directions, origins[:, 0], 0.0)
    hit = expected[0] < 1e4
    assert 0.2 < hit.float().mean() < 1
    torch.testing.assert_close(found[0], expected[0])
    assert torch.equal(found[1][hit], expected[1][hit])


def test_the_running_smooth_minimum_is_the_smooth_minimum(as_accelerator):
    scenes = prepared_scenes(6).scenes
    origins, directions = random_rays(scenes)
    points = origins + directions
    expected = distance(scenes, points)
    as_accelerator()
    torch.testing.assert_close(distance(scenes, points), expected, rtol=1e-4, atol=1e-4)


def test_an_image_is_the_same_in_either_order_of_work(as_accelerator):
    batch = prepared_scenes(2)
    expected = render_together(batch)
    as_accelerator()
    found = render_together(batch)
    torch.testing.assert_close(found.depth, expected.depth, rtol=1e-3, atol=1e-3)
    assert (found.light - expected.light).abs().mean() < 1e-4
    assert torch.equal(found.object_id, expected.object_id)


def test_nothing_waits_for_an_accelerator(as_accelerator):
    few = replace(CONFIG, archetypes="studio", max_convex=6, max_cards=3, max_blobs=5)
    batch = ProceduralGenerator(few).prepare(range(1), 1, (24, 30), 0.5)
    as_accelerator()
    # Fake tensors have no values: whatever asks for one, or for their number, raises.
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = {name: mode.from_tensor(value) for name, value in vars(batch.scenes).items()}
        rendering = render_together(
            PreparedBatch(
                SceneTables(**fakes),
                batch.cameras,
                mode.from_tensor(batch.lights),
                batch.sensors,
                mode.from_tensor(batch.seeds),
                batch.size,
            )
        )
    assert rendering.light.shape == (1, 1, 24 * 30, 3)


@pytest.fixture
def graphs(monkeypatch):
    """Count the graphs of each piece as Dynamo hands them to a compiler."""
    count, pieces = Counter(), {}

    def compiled(function):
        def backend(graph, inputs):
            count[function.__qualname__] += 1
            return graph.forward

        if function not in pieces:
            # The bare code: what checks shapes in tests is the same code for every piece.
            bare = inspect.unwrap(function)
            pieces[function] = torch.compile(bare, fullgraph=True, backend=backend)
        return pieces[function]

    monkeypatch.setattr(fusing, "on_host", lambda tensor: False)
    monkeypatch.setattr(fusing, "compiled", compiled)
    jaxtyping.config.update("jaxtyping_disable", True)
    torch._dynamo.reset()
    yield count
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


@pytest.mark.slow
def test_pieces_are_compiled_for_one_scene_and_for_many(graphs, monkeypatch):
    shapes = ((3, 1, (8, 10)), (2, 1, (7, 5)), (5, 2, (9, 6)), (4, 1, (6, 6)), (6, 1, (5, 4)))
    with monkeypatch.context() as planning:
        planning.setattr(fusing, "on_host", lambda tensor: True)
        many = [prepared_scenes(*shape) for shape in shapes]
        single = [prepared_scenes(1, 1, (8, 8)), prepared_scenes(1, 2, (9, 7))]
    for batch in many:
        render_together(batch)
    assert len(graphs) > 8 and set(graphs.values()) == {1}, graphs
    for batch in single:
        render_together(batch)
    assert max(graphs.values()) <= 3, graphs


def test_a_piece_takes_slices_and_expanded_tensors(graphs):
    for scenes, rays in ((2, 5), (3, 3), (4, 9), (12, 20), (5, 6), (6, 2)):
        waves = torch.rand(2 * scenes, 1, 5, 4)[::2]
        points = torch.rand(1, rays, 3).expand(scenes, -1, -1)
        level = torch.rand(scenes, 1, 2) + 0.5
        assert relief_distance(points, waves, level).shape == (scenes, rays)
    assert graphs["relief_distance"] == 1


def test_marching_is_compiled_for_one_scene_and_for_many(graphs, monkeypatch):
    with monkeypatch.context() as planning:
        planning.setattr(fusing, "on_host", lambda tensor: True)
        tables = {count: prepared_scenes(count).scenes for count in (2, 3, 6, 1)}
    for count, scenes in tables.items():
        for rays in (2, 6, 7):
            assert distance(scenes, torch.rand(count, 2 * rays, 3)[:, ::2]).isfinite().all()
    assert graphs == {"_melt": 2, "_melted_or_relief": 2}
