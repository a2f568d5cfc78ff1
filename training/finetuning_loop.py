"""The training loop of one scene, and what it takes to go on exactly where it stopped."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.scene_model import SceneModel
from training.finetuning_optimization import (
    SceneOptimizerConfig,
    build_scene_optimizer,
    set_learning_rates,
)
from training.finetuning_step import StepSettings, step_losses
from training.gradient_guard import GradientGuard
from training.weight_averaging import AveragedWeights
from utils.seeding import generator_for

_REMEDY = (
    "What was learnt before is in latest.tar. Look at the photos and their cameras, or start anew "
    "with a lower --lrate and --lrate_maps, or with --precision 32-true."
)


class SceneTraining:
    """A scene, its optimiser and its place in the run.

    All randomness of a step is drawn from (seed, step): a resumed run draws the same. What a run
    leaves are the averaged weights; the scene's own are those that the next step begins with.
    """

    def __init__(
        self,
        scene: SceneModel,
        masks: Bool[Tensor, "view height width"],
        settings: StepSettings,
        optimizer: SceneOptimizerConfig,
        seed: int,
        bf16: bool = False,
    ) -> None:
        """Prepare the first step.

        Args:
            scene: What is tuned, on its device.
            masks: Pixels of the training views that count.
            settings: What a step draws and minimises.
            optimizer: Learning rates.
            seed: Seeds views, rays and samples.
            bf16: Whether networks compute in bfloat16.
        """
        self.scene, self.masks, self.settings = scene, masks, settings
        self.config, self.seed, self.bf16 = optimizer, seed, bf16
        self.optimizer = build_scene_optimizer(scene, optimizer)
        trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average = AveragedWeights(trained, optimizer.average_decay)
        self.guard = GradientGuard(optimizer.grad_clip, optimizer.max_bad_steps, _REMEDY)
        candidates = settings.sources_per_step + optimizer.spare_sources
        self.sources = scene.sources_of_training_views(candidates)
        self.step = 0

    def advance(self) -> Float[Tensor, ""]:
        """Take one step and return the rendering's squared error, on the device.

        Raises:
            NonFiniteTrainingError: Gradients stayed non-finite for too many steps.
        """
        device = self.masks.device
        set_learning_rates(self.optimizer, self.config.factor(self.step))
        generator = generator_for(device, self.seed, self.step)
        every = self.config.refine_every
        if self.step and every and self.step % every == 0:
            # Apart from the step: some versions of torch go on with weights that autocast has cast
            # without gradients.
            autocast = torch.autocast(device.type, torch.bfloat16, enabled=self.bf16)
            with self.average.standing_in(), autocast:
                self.scene.refine_depth_prior()
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            losses = step_losses(self.scene, self.masks, self.sources, self.settings, generator)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.guard.apply(self.optimizer, self.step)
        self.optimizer.step()
        self.average.update()
        self.step += 1
        return losses.fine

    def state(self) -> dict[str, Any]:
        """Return what resuming needs beside the scene."""
        return {
            "step": self.step,
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state(),
            "bad_steps": self.guard.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take what ``state`` returned; the scene is the averaged one."""
        self.step = state["step"]
        self.optimizer.load_state_dict(state["optimizer"])
        if "average" in state:
            self.average.restore(state["average"])
        else:
            # Files of earlier versions hold none: it begins here.
            self.average.restart()
        self.guard.restore(state["bad_steps"])


@dataclass
class Best:
    """The scene at its best validation so far."""

    psnr: float = float("-inf")
    step: int = -1
    state: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, scene: SceneModel, step: int, psnr: float) -> bool:
        """Keep a copy of the scene if it is better than any before; say whether it is."""
        if not psnr > self.psnr:
            return False
        self.psnr, self.step = psnr, step
        trained = {name for name, value in scene.named_parameters() if value.requires_grad}
        # What is not trained stays as it is: no need of a copy.
        self.state = {
            name: value.detach().clone() if name in trained else value
            for name, value in scene.scene_state().items()
        }
        return True


class StopSignals:
    """Remembers SIGINT and SIGTERM, so that the step under way ends; a second one acts at once."""

    def __init__(self) -> None:
        self.received = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        """Take the signals over."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._previous[signum] = signal.signal(signum, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the signals back."""
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        if self.received == signum:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        self.received = signum
