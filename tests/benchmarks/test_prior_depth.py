"""The errors of the depth prior as users measure them."""

import pytest
from commands import status_of

from benchmarks import prior_depth

WORLDS = ["--num_worlds", 1, "--world_views", 4, "--image_size", 24, 32, "--world_targets", 1]


@pytest.fixture
def measure(tiny_checkpoint):
    def run(*flags):
        return status_of(prior_depth.main, "--ckpt", tiny_checkpoint, "--device", "cpu", *flags)

    return run


def test_worlds_and_scans_with_depth(measure, tiny_dtu, caplog):
    caplog.set_level("INFO")
    scan = ["--dataset_name", "auto", "--datadir", tiny_dtu, "--targets", 5, "--image_scale", 0.5]
    for flags, targets in ((WORLDS, 2), (scan, 1)):
        caplog.clear()
        assert measure(*flags) == 0
        assert f"{targets} targets" in caplog.text
        rows = {line.split()[0]: line.split()[1:] for line in caplog.text.splitlines() if line}
        for name in ("backbone", "refined"):
            abs_rel, median, close, confidence, weighted = map(float, rows[name])
            assert min(abs_rel, median, weighted) >= 0
            assert 0 <= close <= 100 and 0 <= confidence <= 1


def test_views_without_depth_are_refused(measure, layouts, assert_refused):
    status = measure("--dataset_name", "llff", "--datadir", layouts["llff"], "--image_size", 24, 32)
    assert_refused(status, ["--datadir", "have no depth", "--dataset_name procedural"])
