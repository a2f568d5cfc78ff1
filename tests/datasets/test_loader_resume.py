"""A resumed run sees the samples that the uninterrupted run would have seen, through Lightning."""

import pytest
import pytorch_lightning as pl
import torch

from datasets.config import DataConfig
from datasets.data_module import SceneDataModule

SEED = 5
BATCHES_PER_EPOCH = 4
STEPS = 10  # two and a half epochs

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


class Recorder(pl.LightningModule):
    """Learns nothing and writes down what it is given."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        light = round(batch.sources.images.mean().item(), 4)
        place = (self.current_epoch, batch_idx)
        self.seen.append((place, batch.scene, batch.target_ids, batch.source_ids, light))
        return self.weight * 0.0

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAtEveryChance(pl.Callback):
    """Saves wherever a checkpoint callback may, and notes how many batches had been seen."""

    def __init__(self, folder):
        self.folder = folder
        self.saved = []

    def _save(self, place, trainer, module):
        if not trainer.sanity_checking:
            path = self.folder / f"{len(module.seen):02d}-{place}.ckpt"
            trainer.save_checkpoint(path)
            self.saved.append((len(module.seen), path))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._save("train_batch_end", trainer, pl_module)

    def on_validation_end(self, trainer, pl_module):
        self._save("validation_end", trainer, pl_module)

    def on_train_epoch_end(self, trainer, pl_module):
        self._save("train_epoch_end", trainer, pl_module)


@pytest.fixture(scope="module")
def run(tiny_dtu):
    """Train on the small data set; returns what was seen."""

    def train(num_workers, steps, callbacks=(), checkpoint=None, epochs=None):
        config = DataConfig(
            datadir=str(tiny_dtu),
            num_nearest=6,
            scenes_per_batch=4,
            num_workers=num_workers,
            min_sources=2,
            max_sources=4,
        )
        module = Recorder()
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=-1 if epochs else steps,
            max_epochs=epochs,
            val_check_interval=2,
            callbacks=list(callbacks),
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        data, weights_only = SceneDataModule(config, SEED), True if checkpoint else None
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=weights_only)
        return module.seen

    return train


@pytest.fixture(scope="module")
def uninterrupted(run, tmp_path_factory):
    saver = SaveAtEveryChance(tmp_path_factory.mktemp("checkpoints"))
    return run(0, STEPS, [saver]), saver.saved


def test_run_visits_every_item_once_per_epoch(uninterrupted):
    seen, _ = uninterrupted
    epochs = [seen[:BATCHES_PER_EPOCH], seen[BATCHES_PER_EPOCH : 2 * BATCHES_PER_EPOCH]]
    items = [
        [(scene, target) for batch in epoch for scene, target in zip(*batch[1:3], strict=True)]
        for epoch in epochs
    ]
    assert len(seen) == STEPS and items[0] != items[1]
    assert len(set(items[0])) == len(set(items[1])) == 16


def test_every_checkpoint_continues_where_it_was_taken(uninterrupted, run):
    seen, saved = uninterrupted
    places = {path.stem for _, path in saved}
    expected = {"01-train_batch_end", "02-validation_end", "04-train_batch_end"}
    assert expected | {"04-validation_end", "04-train_epoch_end", "05-train_batch_end"} <= places
    for count, path in saved:
        assert seen[:count] + run(0, STEPS, checkpoint=path) == seen, path.stem


def test_worker_prefetch_does_not_count(uninterrupted, run, tmp_path):
    seen, saved = uninterrupted
    for count in (3, 4, 5):
        path = next(path for given, path in saved if given == count)
        assert seen[:count] + run(2, STEPS, checkpoint=path) == seen
    saver = SaveAtEveryChance(tmp_path)
    assert run(2, 6, [saver]) == seen[:6]
    for count, path in saver.saved[2:5]:
        assert seen[:count] + run(0, STEPS, checkpoint=path) == seen, path.stem


def test_end_of_epoch_in_a_run_counted_in_epochs(uninterrupted, run, tmp_path):
    # Lightning takes such a checkpoint for a finished run and does not restore loaders from it.
    seen, _ = uninterrupted
    saver = SaveAtEveryChance(tmp_path)
    whole = run(0, 0, [saver], epochs=3)
    assert whole[: len(seen)] == seen
    for count, path in saver.saved:
        assert whole[:count] + run(0, 0, checkpoint=path, epochs=3) == whole, path.stem


def test_twice_interrupted(uninterrupted, run, tmp_path):
    seen, saved = uninterrupted
    first = next(path for given, path in saved if given == 3)
    saver = SaveAtEveryChance(tmp_path)
    assert run(0, 7, [saver], checkpoint=first) == seen[3:7]
    assert run(0, STEPS, checkpoint=saver.saved[-1][1]) == seen[7:]
