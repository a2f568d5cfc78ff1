"""A fine-tuning that is stopped before, between and behind its first two files."""

import pytest
from training_runs import same_run, train

from training import checkpointing
from training.finetuning import run_log

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def whole(scene, tmp_path_factory):
    return train(scene, tmp_path_factory.mktemp("whole"))[1]


@pytest.mark.parametrize("written", range(3))
def test_what_was_written_goes_on(written, scene, whole, tmp_path, monkeypatch):
    real, left = run_log.save_atomically, written

    def save(content, path):
        nonlocal left
        if left == 0:
            raise RuntimeError("crash")
        left -= 1
        real(content, path)

    with monkeypatch.context() as patch:
        for module in (run_log, checkpointing):
            patch.setattr(module, "save_atomically", save)
        _, last = train(scene, tmp_path)
    names = ["latest.tar", "best.tar"][:written]
    assert sorted(path.name for path in last.parent.glob("*.tar")) == sorted(names)
    _, last = train(scene, tmp_path, *(["--ckpt", last] if last.exists() else []))
    assert sorted(path.name for path in last.parent.glob("*.tar")) == ["best.tar", "latest.tar"]
    assert same_run(scene, last, whole)
    best = last.with_name("best.tar"), whole.with_name("best.tar")
    states = [run_log.read_scene_file(path)["state"] for path in best]
    assert all(states[0][name].equal(value) for name, value in states[1].items())
