"""Scenes in coordinates of maps read as the same scenes about the origin do."""

import json
import shutil
import struct

import numpy as np
import pytest
import torch

from datasets.formats.registry import open_scene
from utils.cameras import Cameras, project, recentred

EAST = np.array([543210.0, 5432109.0, 350.0])


@pytest.fixture(params=["transforms", "blender", "llff", "colmap", "blendedmvs"])
def moved(request, tmp_path, layouts):
    """A format, its scene and the scene moved."""
    root = shutil.copytree(layouts[request.param], tmp_path / "moved")
    MOVES[request.param](root)
    return request.param, layouts[request.param], root


def move_json(root):
    for path in root.glob("transforms*.json"):
        content = json.loads(path.read_text())
        for frame in content["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, 3] += EAST
            frame["transform_matrix"] = matrix.tolist()
        path.write_text(json.dumps(content))


def move_llff(root):
    rows = np.load(root / "poses_bounds.npy")
    rows[:, :15].reshape(-1, 3, 5)[:, :, 3] += EAST
    np.save(root / "poses_bounds.npy", rows)


def move_blendedmvs(root):
    for path in root.glob("cams/*_cam.txt"):
        lines = path.read_text().splitlines()
        start = lines.index("extrinsic") + 1
        w2c = np.array(
            [[float(word) for word in line.split()] for line in lines[start : start + 4]]
        )
        w2c[:3, 3] -= w2c[:3, :3] @ EAST
        lines[start : start + 4] = [" ".join(map(repr, row)) for row in w2c.tolist()]
        path.write_text("\n".join(lines))


def move_colmap(root):
    from scipy.spatial.transform import Rotation

    path = root / "sparse/0/images.bin"
    content, offset = bytearray(path.read_bytes()), 8
    while offset < len(content):
        pose = struct.unpack_from("<7d", content, offset + 4)
        rotation = Rotation.from_quat(pose[:4], scalar_first=True).as_matrix()
        struct.pack_into("<3d", content, offset + 36, *(np.array(pose[4:]) - rotation @ EAST))
        end = content.index(b"\0", offset + 64) + 1
        offset = end + 8 + 24 * struct.unpack_from("<Q", content, end)[0]
    path.write_bytes(content)
    path = root / "sparse/0/points3D.bin"
    content, offset = bytearray(path.read_bytes()), 8
    while offset < len(content):
        position = np.array(struct.unpack_from("<3d", content, offset + 8)) + EAST
        struct.pack_into("<3d", content, offset + 8, *position)
        offset += 51 + 8 * struct.unpack_from("<Q", content, offset + 43)[0]
    path.write_bytes(content)


MOVES = {
    **{"transforms": move_json, "blender": move_json, "llff": move_llff},
    **{"colmap": move_colmap, "blendedmvs": move_blendedmvs},
}


def test_a_move_changes_nothing_but_the_origin(moved, centered_scene):
    name, where, there = moved
    plain, far = open_scene(name, where), open_scene(name, there)
    assert not plain.origin.any() and far.origin.abs().max() > 1e6
    assert far.cameras.c2w.dtype == torch.float32 and far.cameras.centers.abs().max() < 1e4
    points = torch.from_numpy(centered_scene.points(0)).float()
    shift = torch.from_numpy(EAST) - far.origin
    before, depths = project(points, plain.cameras)
    assert (depths > 100).all()
    after, _ = project((points.double() + shift).float(), far.cameras)
    assert (after - before).abs().max() < 0.02
    torch.testing.assert_close(far.near_far, plain.near_far, rtol=1e-4, atol=0)
    assert far.neighbours == plain.neighbours
    in_files = far.cameras_of_files.centers - torch.from_numpy(EAST)
    torch.testing.assert_close(in_files.float(), plain.cameras.centers, atol=1e-3, rtol=1e-4)


def test_near_the_origin_nothing_is_touched():
    c2w = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    c2w[:, :3, 3] = torch.tensor([[0.0, 3, 7], [9, 5, 1], [4, 8, 2]]).double() + 200
    near, origin = recentred(c2w)
    assert not origin.any() and near.equal(c2w.float())
    c2w[:, :3, 3] += 1e7
    near, origin = recentred(c2w)
    torch.testing.assert_close(near[:, :3, 3].double() + origin, c2w[:, :3, 3], rtol=0, atol=1e-6)
    assert Cameras(torch.eye(3).expand(3, 3, 3), near).centers.abs().max() < 20
