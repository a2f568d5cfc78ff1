"""Records that the program writes for itself: any change of their content is noticed."""

import json

import pytest

from utils.errors import UserError
from utils.records import read_record, write_record

CONTENT = {"url": "x", "counts": (1, 2.5), "done": {"b": None, "a": 1e-7}}


def test_a_record_is_read_as_it_was_written(tmp_path):
    write_record(tmp_path / "a.json", CONTENT)
    assert read_record(tmp_path / "a.json", "list") == {**CONTENT, "counts": [1, 2.5]}


@pytest.mark.parametrize(
    "change", [{"url": "y"}, {"counts": [1, 2.25]}, {"checksum": "0"}, {"c": 1}]
)
def test_a_changed_record_is_refused(tmp_path, change):
    path = tmp_path / "a.json"
    write_record(path, CONTENT)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"a\.json: the list is damaged.* Remove it\."):
        read_record(path, "list", "Remove it.")
