"""The language that describes worlds, and that every block of its files runs."""

import numpy as np
import pytest

from datasets.procedural.config import SCENE_TYPES
from datasets.procedural.worlds.language import BLOCKS, Interpreter, parse
from datasets.procedural.worlds.scene import Frame, Rng, SceneBuilder

TEXT = """
object tower 2  # a comment
  high = 0.1~0.2; stone = material("stone"); count = 3
  brick stack count
  box stone at x,0,top half 0.1,0.1,
    0.1 each x in (1, 2) when x > 1
part brick: height = 0.5; box stone at 0,0,height/2 half 1,1,height/2
choice house
  1 tower, 2 hut
object hut 1000: box 0 half 1,1,1
"""


@pytest.fixture
def blocks(tmp_path, monkeypatch):
    path = tmp_path / "blocks.txt"
    path.write_text(TEXT)
    monkeypatch.setattr("datasets.procedural.worlds.language.BLOCKS", BLOCKS | parse(path))
    return path


def run(name: str, seed: int = 0, **given) -> tuple[dict, SceneBuilder]:
    scene = SceneBuilder()
    return Interpreter(scene, Rng(seed), difficulty=0.5).place(name, Frame(), given), scene


def test_rows_stack_repeat_and_obey_conditions(blocks):
    values, scene = run("tower")
    assert 0.1 <= values["high"] <= 0.2 and values["top"] == 1.5
    centers = np.array([row["sphere"][:3] for row in scene.rows["convex"]])
    np.testing.assert_allclose(centers, [[0, 0, 0.25], [0, 0, 0.75], [0, 0, 1.25], [2, 0, 1.5]])
    assert len(scene.materials) == 1


def test_given_values_win_and_draws_repeat_with_the_seed(blocks):
    assert run("tower", count=1)[0]["top"] == 0.5
    assert run("tower")[0]["high"] == run("tower")[0]["high"] != run("tower", seed=1)[0]["high"]


def test_what_does_not_fit_is_left_out(blocks):
    assert run("hut")[0] == {}
    # The choice takes the one that fits.
    assert all(run("house", seed)[1].rows["convex"] for seed in range(5))
    assert all(option in BLOCKS for block in BLOCKS.values() for _, option in block.options)


def test_errors_name_the_line(blocks, tmp_path):
    path = tmp_path / "wrong.txt"
    path.write_text("object a\n\n  b = 1 +\n")
    with pytest.raises(SyntaxError) as error:
        parse(path)
    assert (error.value.filename, error.value.lineno) == (str(path), 3)


@pytest.mark.parametrize("scene_type", SCENE_TYPES)
def test_every_statement_of_a_scene_type_runs(scene_type):
    for seed in range(25):
        values, scene = run(scene_type, seed)
        assert scene.lamps and scene.materials and values["distance"] > 0
