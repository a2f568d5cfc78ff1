"""How real scenes are divided."""

from pathlib import Path

import pytest

from datasets.formats.llff import FERN_POOL, FERN_TARGETS
from datasets.view_selection import PROTOCOL_POOL, PROTOCOL_TARGETS
from evaluation.config import DataChoice
from training.scene_split import read_split

SCENES = Path(__file__).resolve().parents[4] / "shared" / "scenes"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not SCENES.is_dir(), reason="needs the reference scenes"),
]


@pytest.mark.parametrize(
    ("format_name", "folder", "train", "test"),
    [
        ("dtu", "dtu/scan65", PROTOCOL_POOL, PROTOCOL_TARGETS),
        ("llff", "llff/fern", FERN_POOL, FERN_TARGETS),
        ("transforms", "fox", [v for v in range(50) if v % 8], range(0, 50, 8)),
    ],
)
def test_views_of_the_protocols(format_name, folder, train, test):
    split = read_split(DataChoice(format_name, str(SCENES / folder)), 4)
    assert sorted(split.train_ids) == sorted(train) and sorted(split.test_ids) == sorted(test)
