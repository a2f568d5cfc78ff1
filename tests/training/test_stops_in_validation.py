"""A run that is stopped in validations, by signals or for good, is the uninterrupted run."""

import os
import signal
from pathlib import Path

import pytest
import torch
from training_runs import same_run, train

from models.checkpoints.general import general_content
from training.checkpointing import AtomicCheckpointIO
from training.general_module import GeneralModule
from utils.checkpoints import load_safely
from utils.errors import TrainingInterrupted

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def whole(general, tmp_path_factory):
    """The file that the uninterrupted run leaves."""
    return train(general, tmp_path_factory.mktemp("whole"))[1]


@pytest.fixture
def validations(monkeypatch):
    """Steps at which the views of a validation were rendered, sanity checks left out."""
    steps, real = [], GeneralModule.validation_step

    def step(module, *batch):
        if not module.trainer.sanity_checking:
            steps.append(module.global_step)
        return real(module, *batch)

    monkeypatch.setattr(GeneralModule, "validation_step", step)
    return steps


def train_until(monkeypatch, general, folder, step, *flags, stop):
    """Train, and ``stop`` in the validation after a step; return the file that is left."""
    with monkeypatch.context() as patch:
        real = GeneralModule.validation_step

        def render(module, *batch):
            if module.global_step == step and not module.trainer.sanity_checking:
                stop()
            return real(module, *batch)

        patch.setattr(GeneralModule, "validation_step", render)
        try:
            train(general, folder, *flags)
        except TrainingInterrupted:
            pass
        else:
            assert stop is crash
    return folder / general.last


def crash():
    raise RuntimeError("crash")


def signalled():
    os.kill(os.getpid(), signal.SIGTERM)


def best_files(last):
    return sorted(str(path.relative_to(last.parent)) for path in last.parent.glob("*/*.ckpt"))


@pytest.mark.parametrize(
    ("steps", "stop"),
    [((3, 3), signalled), ((3, 6), crash), ((6, 9), signalled), ((9, 9), crash)],
)
def test_two_stops_in_validations(  # noqa: PLR0913
    general, whole, validations, monkeypatch, tmp_path, steps, stop
):
    path, flags = tmp_path / general.last, ()
    for step in steps:
        train_until(monkeypatch, general, tmp_path, step, *flags, stop=stop)
        assert load_safely(path)["global_step"] == step
        flags = ("--ckpt", path)
    validations.clear()
    losses, _ = train(general, tmp_path, *flags)
    assert sorted(losses) == list(range(steps[-1], 9))
    assert same_run(general, whole, path)
    assert sorted({*validations}) == [step for step in (3, 6, 9) if step >= steps[-1]]
    assert best_files(path) == best_files(whole) != []


def test_the_best_file_resumes_as_the_last_one_does(general, whole, tmp_path):
    best = next(whole.parent.glob("*/*.ckpt"))
    step = general_content(best)["global_step"]
    losses, path = train(general, tmp_path, "--ckpt", best)
    assert sorted(losses) == list(range(step, 9)) and same_run(general, whole, path)


def hostile(content, **state):
    callbacks = content["callbacks"]
    (name,) = [name for name in callbacks if name.startswith("ModelCheckpoint")]
    callbacks[name].update(state)
    return content


@pytest.mark.parametrize("inside", [True, False])
def test_a_hostile_checkpoint_removes_nothing(general, tmp_path, inside, caplog):
    path = train_until(pytest.MonkeyPatch(), general, tmp_path, 6, stop=signalled)
    victim = tmp_path / "victim.ckpt"
    victim.write_text("precious")
    named = f"{path.parent}/../../../victim.ckpt" if inside else str(victim)
    worst = torch.tensor(-5.0)
    state = {
        "best_model_path": named,
        "kth_best_model_path": named,
        "best_k_models": {named: worst},
    }
    content = hostile(load_safely(path), **state, kth_value=worst, best_model_score=worst)
    if inside:
        next(iter(content["callbacks"].values())).pop("dirpath")
    torch.save(content, tmp_path / "hostile.ckpt")
    train(general, tmp_path, "--ckpt", tmp_path / "hostile.ckpt")
    assert victim.read_text() == "precious"
    assert "the best is chosen from later validations" in caplog.text
    assert best_files(path)


def test_nothing_outside_of_the_folder_is_removed(tmp_path, caplog):
    run = tmp_path / "run"
    epoch = run / "ckpts" / "epoch=00"
    epoch.mkdir(parents=True)
    outside = tmp_path / "epoch=00" / "x.ckpt"
    outside.parent.mkdir()
    (run / "link").symlink_to(outside.parent)
    for place in (outside, epoch / "x.ckpt", run / "notes.txt"):
        place.write_text("")
    remover = AtomicCheckpointIO(run)
    for kept in (outside, run / "../epoch=00/x.ckpt", run / "link" / "x.ckpt", run / "notes.txt"):
        remover.remove_checkpoint(kept)
        assert Path(kept).exists() and f"{kept}: not removed" in caplog.text
    remover.remove_checkpoint(epoch / "x.ckpt")
    assert not epoch.exists()
