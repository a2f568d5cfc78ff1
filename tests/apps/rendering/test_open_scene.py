"""What the flags make of a checkpoint and a folder, before anything is rendered."""

import json

import pytest
import torch
from PIL import Image

from apps.rendering import open_scene as opening
from apps.rendering.config import RendererChoice, SceneChoice
from utils.cameras import LengthUnit
from utils.errors import UserError

TUNED = RendererChoice(ckpt="fern/latest.tar", device="cpu")


@pytest.fixture
def tuned_scene(painted_scene, monkeypatch):
    """A fine-tuned scene of DTU, whatever the file."""
    object.__setattr__(painted_scene, "unit", LengthUnit("mm", 200.0))
    monkeypatch.setattr(opening, "open_tuned", lambda *_, **__: painted_scene)
    return painted_scene


@pytest.mark.parametrize(
    ("frame_size", "size"),
    [((16, 20), (128, 160)), ((144, 1), (144, 180)), ((130, 200), (130, 200))],
)
def test_a_world_is_never_photographed_smaller_or_narrower_than_usual(frame_size, size):
    scene = opening.open_photographs(SceneChoice(world_views=1), frame_size)
    assert scene.image_size == size


def test_a_fine_tuned_scene_takes_a_range_in_its_unit_and_names_flags_without_effect(
    tuned_scene, caplog
):
    choice = SceneChoice(datadir="data/dtu", scan="scan65", n_views=5, near_far=(425.0, 905.0))
    scene = opening.open_scene(choice, TUNED)
    torch.testing.assert_close(scene.near_far, torch.tensor([2.125, 4.525]))
    assert scene.n_samples == tuned_scene.n_samples
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and said[0].startswith("fern/latest.tar is a fine-tuned scene")
    assert said[0].endswith("ignoring --datadir, --scan, --n_views")
    caplog.clear()
    assert opening.open_scene(SceneChoice(), TUNED) is tuned_scene and not caplog.records
    with pytest.raises(UserError, match="--sources"):
        opening.open_scene(SceneChoice(sources=(1, 2)), TUNED)


@pytest.mark.parametrize(
    ("given", "near_far"), [(None, [425.0, 1.5 * 905.0]), ((430.0, 900.0), [430.0, 900.0])]
)
@pytest.mark.parametrize(
    ("frame_size", "size"), [(None, (64, 80)), ((64, 80), (64, 80)), ((30, 40), (32, 40))]
)
def test_dtu_has_a_range_in_millimetres_and_about_the_size_of_frames(
    tiny_dtu, given, near_far, frame_size, size
):
    choice = SceneChoice(datadir=str(tiny_dtu), near_far=given)
    scene = opening.open_photographs(choice, frame_size)
    assert scene.image_size == size and scene.unit.name == "mm"
    torch.testing.assert_close(scene.near_far * scene.unit.factor, torch.tensor(near_far))


@pytest.mark.parametrize(("frame_size", "size"), [(None, (64, 80)), ((30, 40), (32, 40))])
def test_photographs_of_several_sizes_are_read_in_the_first_ones_shape(
    tmp_path, frame_size, size, write_layout
):
    root = write_layout("llff", tmp_path)
    Image.new("RGB", (40, 32)).save(max((root / "images").iterdir()))
    scene = opening.open_photographs(SceneChoice(datadir=str(root)), frame_size)
    assert scene.image_size == size
    assert scene.load_views(scene.view_ids).images.shape[-2:] == size


def test_test_views_are_sources_where_nothing_is_measured_and_a_line_says_so(
    tmp_path, write_layout, tiny_checkpoint, caplog
):
    caplog.set_level("INFO")
    root = write_layout("transforms", tmp_path / "scene")
    content = json.loads((root / "transforms.json").read_text())
    content["test_filenames"] = ["images/003.png", "images/005.png"]
    (root / "transforms.json").write_text(json.dumps(content))
    renderer = RendererChoice(ckpt=str(tiny_checkpoint), device="cpu")
    for sources, count in (((), "2 of 8"), ((1, 3, 4), "1 of 3"), ((0, 1, 2), None)):
        caplog.clear()
        opening.open_scene(SceneChoice(datadir=str(root), sources=sources), renderer)
        said = f"scene: {count} source views are declared as test views"
        assert (said in caplog.text) == (count is not None), caplog.text
