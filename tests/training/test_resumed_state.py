"""What a checkpoint says of its training is not believed: one error, before any step."""

import pytest
import torch
from training_runs import train

from utils.checkpoints import load_safely, save_atomically
from utils.errors import UserError

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def stopped(general, tmp_path_factory):
    """The content of a file with six steps of nine."""
    return load_safely(train(general, tmp_path_factory.mktemp("stopped"), at=6)[1])


def damage(content, name, value):
    parts = dict(content)
    parts.pop(name)
    return parts if value is None else {**parts, name: value}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("global_step", value) for value in (None, "ten", -1, 2.5, [1])),
        *(("loops", value) for value in (None, [], "x")),
        *(("optimizer_states", value) for value in ([], [{}], [{"state": 0}], "x")),
        *(("lr_schedulers", value) for value in (None, [], [{"last_epoch": "x"}])),
        *(("callbacks", value) for value in ([], {"ModelCheckpoint": 3})),
        *(("bad_steps", value) for value in ("x", [1])),
        *(("epoch", value) for value in ("x",)),
        *(("SceneDataModule", value) for value in ([], {"train": {}}, {"data": 3})),
        ("state_dict", {"model.volume.points.inward.weight": torch.zeros(1)}),
    ],
)
def test_damaged_state(general, stopped, tmp_path, name, value):
    path = tmp_path / "x.ckpt"
    save_atomically(damage(stopped, name, value), path)
    try:
        losses, _ = train(general, tmp_path, "--ckpt", path)
    except UserError as error:
        assert "x.ckpt" in str(error) or "The checkpoint" in str(error)
    else:
        # What is missing was not needed.
        assert sorted(losses) == list(range(6, 9))


def test_fewer_epochs_than_are_done(general, stopped, tmp_path):
    path = tmp_path / "x.ckpt"
    save_atomically(stopped, path)
    with pytest.raises(UserError, match="--num_epochs 1: .* completed 2 epochs of 3 steps"):
        train(general, tmp_path, "--ckpt", path, "--num_epochs", 1)
    assert not train(general, tmp_path, "--ckpt", path, "--num_epochs", 2)[0]
