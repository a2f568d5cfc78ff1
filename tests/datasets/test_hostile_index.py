import json

import pytest

from datasets.scene_index import INDEX_NAME, read_index
from utils.errors import UserError


@pytest.mark.parametrize("name", ["../other", "..", "a/b", "", "/etc"])
def test_scenes_outside_of_the_folder_are_refused(tmp_path, name):
    rows = {name: {"views": 3, "size": [4, 4], "splits": {}}}
    (tmp_path / INDEX_NAME).write_text(json.dumps({"format": "transforms", "scenes": rows}))
    with pytest.raises(UserError, match=r"scenes\.json: .*is not the name of a folder"):
        read_index("transforms", tmp_path)


def test_absurd_numbers_of_views_are_refused(tmp_path):
    rows = {"a": {"views": 10**8, "size": [4, 4], "splits": {}}}
    (tmp_path / INDEX_NAME).write_text(json.dumps({"format": "transforms", "scenes": rows}))
    with pytest.raises(UserError, match="100000000 views"):
        read_index("transforms", tmp_path)


def test_many_scenes_of_many_views_are_refused(tmp_path):
    # A list of views for each number of them would take 72 GB.
    rows = {str(n): {"views": 10**6 - n, "size": [4, 4], "splits": {}} for n in range(2000)}
    (tmp_path / INDEX_NAME).write_text(json.dumps({"format": "transforms", "scenes": rows}))
    with pytest.raises(UserError, match="1998001000 views"):
        read_index("transforms", tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"size": [4.5, 4]},
        {"size": [-4, 4]},
        {"views": 2.5},
        {"views": [0, True]},
        {"views": [1, 1]},
    ],
)
def test_other_numbers_than_whole_ones_are_refused(tmp_path, change):
    row = {"views": 3, "size": [4, 4], "splits": {}, **change}
    (tmp_path / INDEX_NAME).write_text(json.dumps({"format": "dtu", "scenes": {"a": row}}))
    with pytest.raises(UserError, match=r"scenes\.json: not a readable index"):
        read_index("dtu", tmp_path)
