from types import SimpleNamespace
from typing import cast

import pytest
import pytorch_lightning as pl
import torch

from datasets.config import DataConfig
from datasets.data_module import SceneDataModule
from datasets.loading import ResumableDataLoader
from datasets.sampling import SceneBatchSampler
from utils.errors import UserError


def data_module(datadir, rank=0, world_size=1, **settings):
    module = SceneDataModule(DataConfig(datadir=str(datadir), num_workers=0, **settings), seed=1)
    trainer = SimpleNamespace(global_rank=rank, world_size=world_size)
    module.trainer = cast(pl.Trainer, trainer)
    module.setup()
    return module


def test_training_batches_have_a_scene_axis_and_move(tiny_dtu):
    module = data_module(tiny_dtu, scenes_per_batch=2)
    loader, dataset = module.train_dataloader(), module.train_dataset
    batches = list(loader)
    assert len(batches) == len(loader) == 8
    assert batches[0].sources.images.shape == (2, 3, 3, 64, 80)
    assert batches[0].targets.cameras.c2w.shape == (2, 1, 4, 4)
    moved = batches[0].to("meta")
    assert moved.sources.images.device == torch.device("meta")
    assert moved.targets.masks.dtype == torch.bool
    module.setup("fit")
    assert module.train_dataset is dataset, "the folder is listed once"


def test_every_epoch_that_gave_a_batch_counts(tiny_dtu):
    loader = data_module(tiny_dtu, batches_per_epoch=3).train_dataloader()
    epochs = [[(batch.scene, batch.target_ids) for batch in loader] for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    before = loader.state_dict()
    assert before["epoch"] == 2
    iter(loader)
    iter(loader)
    assert loader.state_dict() == before
    next(iter(loader))
    next(iter(loader))
    assert (loader.state_dict()["epoch"], loader.state_dict()["batches_given"]) == (4, 1)


@pytest.mark.parametrize("change", [{"seed": 2}, {"batches_per_epoch": 7}])
def test_a_place_in_other_data_is_refused(tiny_dtu, change):
    loader = data_module(tiny_dtu).train_dataloader()
    with pytest.raises(UserError, match=next(iter(change))):
        loader.load_state_dict({**loader.state_dict(), **change})


def test_ranks_train_on_different_items(tiny_dtu):
    ranks = [data_module(tiny_dtu, rank, 2).train_dataloader() for rank in range(2)]
    items = [{(batch.scene, batch.target_ids) for batch in loader} for loader in ranks]
    assert [len(part) for part in items] == [8, 8]
    assert not items[0] & items[1]


def test_validation_views_are_spread_over_the_scans_and_ranks(dtu_copy):
    def scenes(*rank, **settings):
        loader = data_module(dtu_copy, *rank, **settings).val_dataloader()
        return [batch.scene[0] for batch in loader]

    (dtu_copy / "lists/val.txt").write_text("scan1\nscan2\n")
    assert scenes() == ["scan1", "scan2"] and len(scenes(val_views=1)) == 1
    assert [scenes(rank, 3) for rank in range(3)] == [["scan1"], ["scan2"], ["scan1"]]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_errors_of_workers_reach_the_user_as_they_are(dtu_copy):
    path = dtu_copy / "Rectified/scan2_train/rect_003_3_r5000.png"
    path.write_bytes(b"broken")
    dataset = data_module(dtu_copy).train_dataset
    loader = ResumableDataLoader(dataset, SceneBatchSampler(dataset.groups), num_workers=1)
    with pytest.raises(UserError) as error:
        for _ in range(4):
            list(loader)
    assert str(error.value).startswith(str(path))
    assert "Traceback" not in str(error.value)
