"""Every parser on damaged files: a result, or one error that names the file. Nothing else."""

import io
import json
import struct
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.data_source import parse_source
from datasets.formats.colmap.model import read_cameras, read_images, read_points
from datasets.formats.images.decoding import read_image, read_mask
from datasets.formats.images.depth_maps import DepthFile, read_depth, read_pfm
from datasets.formats.mvsnet_files import read_camera_file, read_pairs
from datasets.formats.registry import open_scene
from datasets.formats.splits import read_scene_list
from datasets.formats.transforms_file import read_transforms_file
from datasets.scene_index import read_index
from utils.errors import UserError

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
_EYE = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
_ODD = st.sampled_from(
    [*b"nan inf -1e999 1e308 -0 { \xff\xfe".split(), b"9" * 5000, b"\0", b"\n", b""]
)


def saved(save):
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def image_bytes(mode):
    return saved(partial(Image.new(mode, (6, 4)).save, format="PNG"))


ARRAY = saved(partial(np.save, arr=np.ones((3, 4))))


def transforms_bytes():
    pose = np.eye(4).tolist()
    frames = [{"file_path": f"{n}.png", "transform_matrix": pose, "k1": 0.1} for n in range(2)]
    return json.dumps({"fl_x": 20.0, "near": 1, "far": 2, "frames": frames}).encode()


INDEX = b"""{"format": "colmap", "scenes":
    {"a": {"views": 3, "size": [4, 5], "splits": {"train": [0, 2]}}}}"""
BINARY_CAMERAS = struct.pack("<QIiQQ4d", 1, 1, 1, 8, 6, 9.0, 9.0, 4.0, 3.0)
BINARY_IMAGES = (
    struct.pack("<QI7dI", 1, 1, 1, 0, 0, 0, 0, 0, 0, 1)
    + b"a.png\0"
    + struct.pack("<QddQ", 1, 1, 2, 3)
)
BINARY_POINTS = struct.pack("<QQ3d3BdQII", 1, 1, 0.0, 1.0, 2.0, 1, 2, 3, 0.5, 1, 1, 0)

PARSERS = {
    "00000000_cam.txt": (
        f"extrinsic\n{_EYE}\nintrinsic\n9 0 4\n0 9 3\n0 0 1\n\n425 2.5 192 900\n".encode(),
        read_camera_file,
    ),
    "map.pfm": (b"Pf\n2 2\n-1.0\n" + struct.pack("<4f", 1, 2, 3, 4), read_pfm),
    "depth.npy": (ARRAY, lambda path: read_depth(DepthFile(path, 0.5))),
    "depth.png": (image_bytes("I;16"), lambda path: read_depth(DepthFile(path, 0.5))),
    "image.png": (image_bytes("RGBA"), lambda path: read_image(path, 1.0)),
    "mask.png": (image_bytes("L"), read_mask),
    "transforms.json": (transforms_bytes(), read_transforms_file),
    "scenes.json": (INDEX, lambda path: read_index("colmap", path.parent)),
    "pair.txt": (b"2\n0\n1 1 10.5\n1\n1 0 3.5\n", read_pairs),
    "train.txt": (b"scan1\nscan2 # two\n", partial(read_scene_list, plain_names=True)),
    "val.txt": ("über scene\nb\n".encode(), read_scene_list),
    "cameras.bin": (BINARY_CAMERAS, read_cameras),
    "images.bin": (BINARY_IMAGES, read_images),
    "points3D.bin": (BINARY_POINTS, read_points),
    "cameras.txt": (b"# list\n1 PINHOLE 8 6 9 9 4 3\n", read_cameras),
    "images.txt": (b"# list\n1 1 0 0 0 0 0 0 1 a b.png\n1 2 3\n", read_images),
    "points3D.txt": (b"1 0 1 2 1 2 3 0.5 1 0 2 0\n", read_points),
}


def assert_result_or_clear_error(path: Path, content: bytes, parse) -> None:
    path.write_bytes(content)
    try:
        parse(path)
    except UserError as error:
        assert path.name in str(error) and len(str(error)) < 2000


@pytest.mark.parametrize("name", PARSERS)
@FUZZ
@given(data=st.data())
def test_damaged_files(tmp_path, name, data):
    content, parse = PARSERS[name]
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 12)))
        piece = data.draw(st.one_of(st.binary(max_size=9), _ODD))
        content = content[:start] + piece + content[end:]
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    assert_result_or_clear_error(tmp_path / name, content, parse)


@pytest.mark.parametrize("name", PARSERS)
@FUZZ
@given(content=st.binary(max_size=200))
def test_anything_at_all(tmp_path, name, content):
    assert_result_or_clear_error(tmp_path / name, content, PARSERS[name][1])


@pytest.mark.parametrize("name", PARSERS)
def test_whole_empty_and_missing_files_and_folders(tmp_path, name):
    (content, parse), path = PARSERS[name], tmp_path / name
    path.write_bytes(content)
    assert parse(path) is not None
    assert_result_or_clear_error(path, b"", parse)
    path.unlink()
    if name != "scenes.json":
        for _ in ("missing", "a folder"):
            with pytest.raises(UserError, match=name.replace(".", r"\.")):
                parse(path)
            path.mkdir(exist_ok=True)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.pfm", b"Pf\n2000000 2000000\n-1.0\n" + b"\0" * 64),
        ("cameras.bin", struct.pack("<Q", 2**60) + b"\0" * 64),
        ("images.bin", struct.pack("<Q", 2**40) + b"\0" * 64),
        ("points3D.bin", BINARY_POINTS[:-16] + struct.pack("<QII", 2**61, 1, 0)),
        ("depth.npy", ARRAY.replace(b"(3, 4)", b"(9999999, 99999)")),
        ("pair.txt", b"999999999999\n0\n99999999999 1 10\n"),
    ],
)
def test_promises_are_not_believed(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        PARSERS[name][1](tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24


READERS = {
    "colmap": ["sparse/0/cameras.bin", "sparse/0/images.bin", "sparse/0/points3D.bin"],
    "blendedmvs": ["cams/00000000_cam.txt", "cams/pair.txt"],
    "blender": ["transforms_train.json", "transforms_test.json"],
    "llff": ["poses_bounds.npy"],
}


@pytest.fixture(scope="module", params=READERS)
def layout(request, tmp_path_factory, write_layout):
    root = tmp_path_factory.mktemp(request.param)
    return request.param, write_layout(request.param, root)


@settings(parent=FUZZ, max_examples=25)
@given(data=st.data())
def test_whole_scenes_with_one_damaged_file(layout, data):
    name, root = layout
    path = root / data.draw(st.sampled_from(READERS[name]))
    content = path.read_bytes()
    start = data.draw(st.integers(0, len(content)))
    piece = data.draw(st.one_of(st.binary(min_size=1, max_size=9), _ODD))
    path.write_bytes(content[:start] + piece + content[start + len(piece) :])
    try:
        scene = open_scene(name, root)
        assert scene.cameras.c2w.isfinite().all() and scene.cameras.intrinsics.isfinite().all()
        assert 0 < scene.near_far[0] < scene.near_far[1] < float("inf")
    except UserError as error:
        assert str(root) in str(error)
    finally:
        path.write_bytes(content)


@FUZZ
@given(
    text=st.text(max_size=60), prefix=st.sampled_from(["", "dtu:", "colmap:x,", "llff:a,weight="])
)
def test_source_descriptions(text, prefix):
    try:
        source = parse_source(prefix + text)
        assert source.weight > 0 and str(source.folder)
    except UserError as error:
        assert "mix" in str(error)
