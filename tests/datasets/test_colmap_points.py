import struct

import pytest
import torch

from datasets.formats.colmap_points import read_colmap_points
from utils.errors import UserError

POSITIONS = [(0.0, 1.0, 2.0), (3.0, 4.0, 5.0), (6.0, 7.0, 8.0)]
TRACKS = [(7, 2), (2, 9), (9, 7, 7)]
"""Image numbers; the last image saw the last point twice."""


def points_file(tracks=TRACKS):
    content = struct.pack("<Q", len(tracks))
    for number, (position, track) in enumerate(zip(POSITIONS, tracks, strict=True)):
        content += struct.pack("<Q3d3BdQ", 10 + number, *position, 1, 2, 3, 0.5, len(track))
        content += b"".join(struct.pack("<II", image, 99) for image in track)
    return content


def images_file(names):
    content = struct.pack("<Q", len(names))
    for number, name in names.items():
        content += struct.pack("<I7dI", number, 1, 0, 0, 0, 0, 0, 0, 1) + name.encode() + b"\0"
        content += struct.pack("<QddQ", 1, 4.0, 5.0, 10)
    return content


def as_lists(points):
    return [seen.tolist() for seen in points.seen]


def test_images_count_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "points3D.bin").write_bytes(points_file())
    points = read_colmap_points(tmp_path)
    assert torch.equal(points.positions, torch.tensor(POSITIONS))
    assert as_lists(points) == [[0, 1], [0, 2], [1, 2]]


def test_images_count_in_the_order_of_their_names_where_these_are_known(tmp_path):
    (tmp_path / "points3D.bin").write_bytes(points_file())
    names = {7: "b.png", 2: "c.png", 9: "a.png", 4: "blind.png"}
    (tmp_path / "images.bin").write_bytes(images_file(names))
    assert as_lists(read_colmap_points(tmp_path)) == [[1, 2], [0, 2], [], [0, 1]]


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "longer", "cut images"])
def test_damaged_models_are_refused_by_name(tmp_path, damage):
    content = points_file()
    files = {"empty": b"", "cut": content[:-5], "longer": content + b"\0", "cut images": content}
    if damage in files:
        (tmp_path / "points3D.bin").write_bytes(files[damage])
    if damage == "cut images":
        (tmp_path / "images.bin").write_bytes(images_file({7: "b.png"})[:70])
    with pytest.raises(UserError, match=str(tmp_path)):
        read_colmap_points(tmp_path)
