"""Training on shards of a web server: the run on the data set itself, wherever it was cut."""

import pytest
from training_runs import same_run, train

from apps.make_shards import ShardConfig, make_shards

pytestmark = pytest.mark.filterwarnings("default")


def test_a_run_on_shards_resumes_at_the_exact_sample(
    general, tiny_dtu, serve, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    make_shards(ShardConfig("dtu", str(tiny_dtu), out=str(tmp_path / "shards")))
    on_disk = train(general, tmp_path / "disk", "--mix", f"dtu:{tiny_dtu}")
    mix = ["--mix", f"shards:{serve(tmp_path / 'shards').url}", "--shard_cache_mb", 1]
    first, path = train(general, tmp_path / "web", *mix, at=4)
    second, path = train(general, tmp_path / "web", *mix, "--ckpt", path)
    assert max(first) == 3 and min(second) == 4
    assert first | second == on_disk[0]
    assert same_run(general, on_disk[1], path)
