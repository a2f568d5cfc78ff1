from collections import Counter

from datasets.procedural.config import ReplayConfig
from datasets.procedural.replay import RenderedBatches, batch_of


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


def run(config: ReplayConfig, steps: range, rendered: list[int]) -> list[str]:
    """Go through steps with nothing rendered before."""
    batches = RenderedBatches(config)

    def render(plan: int) -> str:
        rendered.append(plan)
        return f"batch {plan}"

    taken = []
    for step in steps:
        missing = config.missing_batches(step, batches.numbers)
        taken.append(batches.take(step, 0, {number: number for number in missing}, render))
        assert len(batches.numbers) <= config.replay_batches
    return taken


def test_resuming_anywhere_takes_the_same_batches():
    config = ReplayConfig(visits=3, replay_batches=4)
    rendered: list[int] = []
    whole = run(config, range(40), rendered)
    assert rendered == list(range(14))
    for start in (0, 1, 5, 17, 39):
        assert run(config, range(start, 40), []) == whole[start:]
