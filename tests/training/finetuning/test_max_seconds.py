"""As many steps of fine-tuning as take a given time."""

from contextlib import nullcontext
from types import SimpleNamespace

import torch

from training.config import FineTuningConfig, SceneOptimizerConfig
from training.finetuning.module import FineTuningModule
from training.finetuning.run import limit_to_seconds


class Module(FineTuningModule):
    """Takes a tenth of a second for a step on a clock that it turns itself."""

    def __init__(self, clock):
        torch.nn.Module.__init__(self)
        self.weight, self.clock = torch.nn.Parameter(torch.ones(())), clock

    @property
    def device(self):
        return torch.device("cpu")

    def step_memory(self):
        return nullcontext()

    def training_step(self, batch, number):
        self.clock.now += 0.1
        return {"loss": self.weight * 2}


def test_steps_fill_the_time_and_leave_no_gradient(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("training.finetuning.run.time.perf_counter", lambda: clock.now)
    config = FineTuningConfig(optimizer=SceneOptimizerConfig(max_seconds=6.0))
    module = Module(clock)
    timed = limit_to_seconds(config, module, bf16=False)
    assert timed.optimizer.num_steps == 60 and timed.run.val_every == 30
    assert module.weight.grad is None
