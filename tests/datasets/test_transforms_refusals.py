"""Bad ``transforms.json`` scenes: one clear error that names the file and what is wrong."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.formats.registry import open_scene
from utils.errors import UserError

EYE = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
LONG = '{"frames": ' + "[" * 900 + "]" * 900 + "}"


def content_of(count=3, frame=None, **changes):
    """A good scene; ``frame`` changes its second frame, None among ``changes`` removes a key."""
    frames = [{"file_path": f"{view}.png", "transform_matrix": EYE} for view in range(count)]
    frames[1] |= frame or {}
    content = {"fl_x": 20.0, "w": 16, "h": 12, "near": 1, "far": 2, "frames": frames} | changes
    return {key: value for key, value in content.items() if value != "absent"}


def write(root, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "transforms.json").write_text(text)


def assert_refused(root, match):
    with pytest.raises(UserError, match=match) as refusal:
        open_scene("transforms", root)
    assert len(str(refusal.value).encode()) < 2000


@pytest.fixture
def root(tmp_path):
    for view in range(3):
        Image.new("RGB", (16, 12), (view, 0, 0)).save(tmp_path / f"{view}.png")
    write(tmp_path, content_of())
    return tmp_path


def test_the_scene_itself_is_fine(root):
    assert open_scene("transforms", root).load_views([0, 1, 2]).masks.all()
    write(root, content_of(frame={"transform_matrix": EYE[:3]}))
    first, second, _ = open_scene("transforms", root).cameras.c2w
    assert first.equal(second)


def test_images_that_are_missing_damaged_or_of_another_size(root):
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(noise).save(root / "1.png")
    whole = (root / "1.png").read_bytes()
    (root / "1.png").write_bytes(whole[: len(whole) // 2])
    scene = open_scene("transforms", root)
    with pytest.raises(UserError, match=r"1\.png: cannot read the image"):
        scene.load_views([1])
    (root / "1.png").write_bytes(b"")
    assert_refused(root, r"1\.png: cannot read the image")
    Image.new("RGB", (12, 6)).save(root / "1.png")
    assert_refused(root, r"1\.png: the image is 12x6, but .* of 16x12 or a fraction")
    for view in range(3):
        (root / f"{view}.png").unlink()
    assert_refused(
        root, r"json: the images of 3 of 3 frames are missing \('0.*, '2\.png'\), looked"
    )
    write(root, content_of(9))
    assert_refused(root, r"json: the images of 9 of 9 frames are missing \('0.png', .*, \.\.\.\)")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"fl_x": float("nan")}, "fl_x must be a finite number"),
        ({"fl_x": "20"}, "fl_x must be a finite number, found '20'"),
        ({"fl_x": True}, "fl_x must be a finite number"),
        ({"fl_x": 10**400}, "fl_x must be a finite number"),
        ({"fl_x": 0}, "a focal length of 0 pixels"),
        ({"fl_x": -20.0}, "a focal length of -20 pixels"),
        ({"fl_x": 1e9}, r"a focal length of 1e\+09 pixels"),
        ({"cx": 0.5}, r"principal point \(0\.5, 6\) is not near the centre"),
        ({"cy": 800}, r"principal point \(8, 800\)"),
        ({"k4": 0.1}, "k4 0.1 is not a coefficient of OpenCV"),
        ({"camera_model": "EQUIRECTANGULAR"}, "'EQUIRECTANGULAR' is not supported.*--camera-type "),
        ({"camera_model": ["OPENCV"]}, "is not supported"),
        ({"near": None}, "near must be a finite number"),
        ({"near": 5}, "near is 5 and far 2"),
        ({"far": "absent"}, "has near alone"),
        ({"frame": {"mask_path": 7}}, "frame 1 .*: mask_path must name a file, found 7"),
        ({"frames": []}, "'frames' is empty"),
        ({"frames": {"a": 1}}, "'frames' must be a list"),
        ({"frames": [7]}, "frame 0: expected an object, found 7"),
        ({"fl_x": "absent"}, "frame 0.*has neither fl_x nor camera_angle_x"),
        ({"fl_x": "absent", "camera_angle_x": 4.0}, r"camera_angle_x 4 gives no focal length\."),
        (
            {"fl_x": "absent", "camera_angle_x": 1.0, "camera_model": "OPENCV_FISHEYE"},
            "of a fisheye; give fl_x and fl_y",
        ),
        ({"frame": {"file_path": "./2.png"}}, r"frame [12] \('(\./)?2\.png'\): '2\.png' has two"),
        ({"frame": {"file_path": "2"}}, r"2\.png belongs to two frames"),
        ({"frame": {"depth_file_path": "x.npy"}}, r"frame 1.*depth map 'x\.npy' is missing"),
        ({"frame": {"depth_unit_scale_factor": 0}}, "depth_unit_scale_factor must be positive"),
        *(
            ({"frame": {"file_path": name}}, "frame 1: file_path must name an image")
            for name in (None, 7, "", " ", ["1.png"])
        ),
        *(
            ({"frame": {"transform_matrix": matrix}}, rf"frame 1 \('1\.png'\): .*{problem}")
            for matrix, problem in (
                (None, "4 rows of 4 numbers, found None"),
                (EYE[:2], "4 rows of 4 numbers"),
                ([*EYE[:3], [0, 0, 0, 2]], r"the last 0 0 0 1, found \[0, 0, 0, 2\]"),
                ([[1, 0, 0], *EYE[1:]], r"found \[1, 0, 0\]"),
                ([[1, 0, 0, float("nan")], *EYE[1:]], "found .*nan"),
                ([[1, 0, 0, 1e300], *EYE[1:]], r"found .*1e\+300"),
                ([[-1, 0, 0, 0], *EYE[1:]], "mirror image"),
                ([[2, 0, 0, 0], *EYE[1:]], "orthonormal"),
                ([[0, 0, 0, 0], *EYE[1:]], "orthonormal"),
            )
        ),
    ],
)
def test_impossible_values(root, changes, problem):
    write(root, content_of(**changes))
    assert_refused(root, rf"(transforms\.json|\.png).*{problem}")


@pytest.mark.parametrize("name", ["\ud800.png", "a\0b.png", "x" * 5000, "..", "/", "."])
def test_names_that_no_image_can_have_are_left_out(root, name, caplog):
    write(root, content_of(frame={"file_path": name}))
    assert open_scene("transforms", root).view_names == ("0.png", "2.png")
    assert "the images of 1 of 3 frames are missing, which are left out" in caplog.text
    assert len(caplog.text) < 2000


def test_files_that_are_missing_or_no_camera_file(root):
    path = root / "transforms.json"
    for text in ("", "[]", "7", "{", '{"frames": ', "[" * 100_000, LONG):
        write(root, text)
        assert_refused(root, r"transforms\.json")
    path.write_bytes(b"\xff\xfe\x00\x01")
    assert_refused(root, r"transforms\.json: cannot read the camera file")
    with path.open("wb") as file:
        file.truncate(1 << 26)
    assert_refused(root, "larger than any camera file")
    assert_refused(root / "nowhere", r"nowhere: no such folder or file")
    path.rename(root / "transforms_train.json")
    assert_refused(root, r"no transforms\.json; give the path of one of transforms_train\.json")
    (root / "transforms_train.json").unlink()
    assert_refused(root, r"no transforms\.json; it holds no JSON")


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
KEYS = ["fl_x", "w", "k1", "near", "frames", "camera_model", "is_fisheye"]
FRAME_KEYS = ["file_path", "mask_path", "transform_matrix", "fl_x", "cx", "camera_model"]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON_VALUES), st.sampled_from(FRAME_KEYS), JSON_VALUES
)
def test_any_json_is_read_or_refused(root, shared, key, value):
    content = {**content_of(), **shared}
    if isinstance(content["frames"], list):
        content["frames"] = [*content["frames"], {**content_of()["frames"][0], key: value}]
    write(root, content)
    try:
        open_scene("transforms", root)
    except UserError as error:
        assert str(root) in str(error) and len(str(error)) < 2000


def test_a_file_without_frames_and_names_that_are_empty(root):
    path = root / "transforms.json"
    content = json.loads(path.read_text())
    for frame in content["frames"]:
        frame |= {"mask_path": "", "depth_file_path": None}
    path.write_text(json.dumps(content))
    assert open_scene("transforms", root).load_views([0]).masks.all()
    path.write_text(json.dumps(content | {"frames": []}))
    with pytest.raises(UserError, match=r"'frames' is empty.*apps\.estimate_cameras"):
        open_scene("transforms", root)


def test_more_frames_than_a_scene_can_have(tmp_path):
    write(tmp_path, content_of(count=2**16 + 1))
    assert_refused(tmp_path, "lists 65537 frames, more than the 65536 that are read; keep every")
