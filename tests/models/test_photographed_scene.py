"""The interface for Python programs: arrays in, arrays out."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from textured_planes import FOCAL, photograph, pose, texture

from utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def arrays(count=4):
    """Photographs of two planes with their cameras."""
    random = np.random.default_rng(0)
    planes = [(2.0, 6.0, texture(random)), (0.3, 0.8, texture(random))]
    poses = np.stack([pose(view) for view in range(count)])
    images = np.stack([photograph(planes, c2w) for c2w in poses])
    K = np.array([[FOCAL, 0, 160], [0, FOCAL, 120], [0, 0, 1]])
    return np.repeat(images[..., None], 3, -1), np.tile(K, (count, 1, 1)), poses


def test_given_cameras_are_rendered_from_the_nearest_photographs(tiny_model):
    images, K, c2w = arrays()
    scene = tiny_model.encode_images(images, K, c2w, n_views=2)
    near, far = scene.near_far.tolist()
    assert near < 4 and far > 6
    np.testing.assert_allclose(scene.c2w, c2w, atol=1e-6)
    rgb, depth = scene.render(K[0] * [[0.25], [0.25], [1]], c2w[0], (60, 80))
    assert rgb.shape == (60, 80, 3) and rgb.dtype == np.uint8
    assert depth.shape == (60, 80) and near <= depth.min() <= depth.max() <= far
    assert [key[2:] for key in scene.scene._encoded] == [(0, 1)]
    again, _ = scene.render(K[0] * [[0.25], [0.25], [1]], c2w[0], (60, 80))
    np.testing.assert_array_equal(again, rgb)


def test_coordinates_of_maps_lose_nothing(tiny_model):
    images, K, c2w = arrays()
    far = c2w.copy()
    far[:, :3, 3] += [543210.25, 5432109.5, 120.0]
    near_far, small = (2.0, 9.0), K[0] * [[0.25], [0.25], [1]]
    expected, _ = tiny_model.encode_images(images, K, c2w, near_far, 2).render(
        small, c2w[0], (60, 80)
    )
    scene = tiny_model.encode_images(images, K, far, near_far, 2)
    np.testing.assert_allclose(scene.c2w, far, atol=1e-6, rtol=0)
    actual, _ = scene.render(small, far[0], (60, 80))
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= 1


def test_a_video_has_the_frames_that_were_asked_for(tiny_model, tmp_path, decode_video):
    images, K, c2w = arrays()
    scene = tiny_model.encode_images(images, K, c2w, near_far=(2.0, 9.0), n_views=2)
    scene.save_video(tmp_path / "a.mp4", "ellipse", n_frames=14, size=(24, 32))
    _, frames = decode_video(tmp_path / "a.mp4")
    assert frames.shape == (14, 24, 32, 3)


def test_what_is_refused(tiny_model):
    images, K, c2w = arrays(2)
    with pytest.raises(UserError, match=r"expected two or more as uint8"):
        tiny_model.encode_images(images / 255.0, K, c2w)
    with pytest.raises(UserError, match="go together"):
        tiny_model.encode_images(images, K)
    with pytest.raises(UserError, match=r"K of shape \(2, 3, 3\)"):
        tiny_model.encode_images(images, K[:1], c2w)
    with pytest.raises(UserError, match=r"c2w\[1\].*not orthonormal"):
        tiny_model.encode_images(images, K, c2w * [[[1.0] * 4], [[2.0, 1.0, 1.0, 1.0]]])


def test_the_lines_of_the_readme(plane_photos, monkeypatch, decode_video):
    text = (ROOT / "README.md").read_text()
    found = re.search(r"^## Python\n+```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert found is not None and "n_frames=48" in found[1]
    for path in plane_photos.glob("*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    home = plane_photos.parent
    plane_photos.rename(home / "my_photos")
    (home / "ckpts").symlink_to(ROOT / "ckpts")
    monkeypatch.chdir(home)
    values = {}
    exec(found[1].replace("n_frames=48", "n_frames=2"), values)  # noqa: S102
    truth = values["images"][0].astype(float)
    error = np.abs(values["rgb"].astype(float) - truth).mean()
    assert error < 0.5 * np.abs(truth - truth.mean()).mean()
    assert decode_video(home / "scene.mp4")[1].shape == (2, 240, 320, 3)
