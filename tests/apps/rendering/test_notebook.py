"""The notebook, from top to bottom, at a size that a test has time for."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = """
from apps.rendering.config import CameraPathChoice, RendererChoice, SceneChoice, VideoConfig

scene_choice = SceneChoice()
renderer = RendererChoice(ckpt={ckpt!r}, device="cpu")
path_choice = CameraPathChoice(path="dtu", n_frames=3, size=(24, 32))
video = VideoConfig(out={out!r}, depth=True)
"""


@pytest.fixture
def notebook():
    return nbformat.read(ROOT / "renderer_video.ipynb", as_version=4)


def settings_of(notebook):
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    return cell


def test_cells_are_few_and_thin_and_need_neither_data_nor_a_gpu_as_shipped(notebook):
    assert len(notebook.cells) <= 10
    for cell in notebook.cells:
        assert cell.source.count("\n") < 16
        assert not cell.get("outputs") and cell.get("execution_count") is None
    source = settings_of(notebook).source
    assert all(line in source for line in ("SceneChoice(world=0)", "= RendererChoice()"))


# Jupyter's own client and the event loop that it runs on.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_it_runs_from_top_to_bottom(notebook, tiny_checkpoint, tmp_path):
    out = tmp_path / "video.mp4"
    settings_of(notebook).source = SETTINGS.format(ckpt=str(tiny_checkpoint), out=str(out))
    where = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=300, resources=where).execute()
    assert {path.name for path in tmp_path.iterdir()} == {"video.gif", "video.mp4"}
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kinds = [kind for output in outputs for kind in output.get("data", ())]
    assert kinds.count("image/png") == 2 and any("<video" in str(output) for output in outputs)
