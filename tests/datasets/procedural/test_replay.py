from collections import Counter
from types import SimpleNamespace

from datasets.procedural.config import ReplayConfig
from datasets.procedural.generator import ProceduralGenerator
from datasets.procedural.replay import PlannedData, batch_of


def visited(config: ReplayConfig, steps: int, seed: int = 0) -> list[int]:
    return [batch_of(config, step, seed) for step in range(steps)]


def test_every_batch_is_new_once_and_visited_often():
    config = ReplayConfig(visits=4, replay_batches=8)
    batches = visited(config, 4000)
    assert batches[::4] == list(range(1000))
    counts = Counter(batches)
    assert sum(counts.values()) / len(counts) == 4
    assert max(counts.values()) < 16
    ages = [step // 4 - batch for step, batch in enumerate(batches)]
    assert set(ages) == set(range(8))


def test_batches_are_a_function_of_step_and_seed():
    config = ReplayConfig()
    assert visited(config, 100, seed=1) != visited(config, 100)
    assert visited(ReplayConfig(visits=1, replay_batches=5), 20) == list(range(20))


class Renderer(ProceduralGenerator):
    """Stands in for a generator: plans are numbers, and batches are texts."""

    def __init__(self, rendered):
        self.rendered = rendered

    def on(self, device):
        return self

    def render(self, plan):
        self.rendered.append(plan)
        return f"batch {plan}"


class NumberedData(PlannedData):
    def request(self, batch):
        return batch


def run(config: ReplayConfig, steps: range, rendered: list[int]) -> list[str]:
    """Go through steps with nothing rendered before."""
    data = NumberedData(Renderer(rendered), config, 0, len(steps), 0)
    trainer = SimpleNamespace(global_step=steps.start, strategy=SimpleNamespace(root_device="cpu"))
    data.trainer = trainer
    taken = []
    for plans in data._next_steps(len(steps)):
        taken.append(data.on_after_batch_transfer(plans, 0))
        assert len(data._rendered) <= config.replay_batches
        trainer.global_step += 1
    return taken


def test_resuming_anywhere_takes_the_same_batches():
    config = ReplayConfig(visits=3, replay_batches=4)
    rendered: list[int] = []
    whole = run(config, range(40), rendered)
    assert rendered == list(range(14))
    for start in (0, 1, 5, 17, 39):
        assert run(config, range(start, 40), []) == whole[start:]
