"""Which pixels count: masks of files, masks of moving objects, transparency."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.config import DataChoice, DataConfig
from datasets.data_module import SceneDataModule
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from datasets.protocols import check_valid_pixels, scene_tasks
from utils.errors import UserError


@pytest.fixture
def root(tmp_path, write_layout):
    return write_layout("transforms", tmp_path / "scene a")


def change(root, function):
    """Change the frames of the file."""
    path = root / "transforms.json"
    whole = json.loads(path.read_text())
    function(whole["frames"])
    path.write_text(json.dumps(whole))


def masked(root, values):
    for number, value in enumerate(values):
        Image.fromarray(np.full((64, 80), value, np.uint8)).save(root / f"mask{number}.png")
    change(root, lambda frames: [f.update(mask_path=f"mask{n}.png") for n, f in enumerate(frames)])


@pytest.mark.parametrize("name", ["transforms", "llff", "colmap"])
def test_masks_of_moving_things_beside_the_photos_leave_them_out(
    name, tmp_path, write_layout, caplog
):
    root = write_layout(name, tmp_path / "scene a")
    moving = np.zeros((64, 80), np.uint8)
    moving[:, :40] = 255
    Image.fromarray(moving).save(root / "images" / "dynamic_mask_000.png")
    masks = open_scene(name, root).load_views([0, 1]).masks
    assert not masks[0, :, :40].any() and masks[0, :, 40:].all() and masks[1].all()
    assert "1 masks of moving objects are used: dynamic_mask_000.png" in caplog.text
    assert "have no camera" not in caplog.text


def test_what_is_transparent_shows_the_background(root):
    noise = np.random.default_rng(0).integers(0, 255, (64, 80, 4), np.uint8)
    noise[:, :40, 3], noise[:, 40:, 3] = 0, 255
    Image.fromarray(noise).save(root / "images/000.png")
    for background in (0.0, 1.0):
        scene = open_scene("transforms", root, ReadOptions(background=background))
        image = scene.load_views([0]).images[0]
        assert (image[..., :40] == background).all()
        truth = torch.from_numpy(noise[:, 40:, :3] / 255).permute(2, 0, 1).float()
        torch.testing.assert_close(image[..., 40:], truth)


def test_masks_that_leave_nothing_to_count_are_refused_at_once(root):
    masked(root, [0] * 8)
    with pytest.raises(UserError, match=r"no pixel of its 8 photos is valid.*mask0\.png.*invert"):
        open_scene("transforms", root)
    masked(root, [0, 1, 1, 1, 1, 1, 1, 1])
    (task,) = scene_tasks(DataChoice(dataset_name="transforms", datadir=str(root), targets=(0,)))
    with pytest.raises(UserError, match=r"no pixel of its test views \[0\] counts"):
        check_valid_pixels(task)
    (task,) = scene_tasks(DataChoice(dataset_name="transforms", datadir=str(root), targets=(0, 3)))
    check_valid_pixels(task)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1] + [0] * 7, "no pixel counts of the 7 views to train on"),
        ([0] + [1] * 7, "no pixel counts of the 1 views to validate on"),
        ([1, 0, 0, 0, 0, 0, 0, 1], None),
    ],
)
def test_training_on_views_that_do_not_count_is_refused_before_the_run(root, values, told):
    masked(root, values)
    config = DataConfig(
        *("transforms", str(root)), num_workers=0, max_sources=3, num_nearest=6, num_targets=1
    )
    if told is None:
        SceneDataModule(config).setup()
    else:
        with pytest.raises(UserError, match=told):
            SceneDataModule(config).setup()


def test_images_that_are_transparent_everywhere_are_refused_at_once(root):
    clear = Image.new("RGBA", (80, 64), (200, 10, 10, 0))
    for number in range(8):
        clear.save(root / "images" / f"{number:03d}.png")
    with pytest.raises(
        UserError, match=r"no pixel of its 8 photos is valid.*transparent.*000\.png"
    ):
        open_scene("transforms", root)
    Image.new("RGB", (80, 64), (200, 10, 10)).save(root / "images" / "003.png")
    masks = open_scene("transforms", root).load_views([0, 3]).masks
    assert not masks[0].any() and masks[1].all()
    choice = DataChoice(dataset_name="transforms", datadir=str(root), targets=(0,))
    with pytest.raises(UserError, match=r"no pixel of its test views \[0\] counts"):
        check_valid_pixels(scene_tasks(choice)[0])


def test_the_mask_of_moving_things_that_a_frame_names(root):
    masked(root, [255] * 8)
    moving = np.zeros((64, 80), np.uint8)
    moving[:32] = 255
    Image.fromarray(moving).save(root / "moving.png")
    change(root, lambda frames: frames[2].update(dynamic_mask_path="moving.png"))
    mask = open_scene("transforms", root).load_views([2]).masks[0]
    assert not mask[:32].any() and mask[32:].all()


def test_masks_and_photos_may_differ_in_size_but_not_in_shape(root):
    masked(root, [255] * 8)
    Image.new("L", (160, 128), 255).save(root / "mask0.png")
    assert open_scene("transforms", root).load_views([0]).masks.all()
    Image.new("L", (128, 160), 255).save(root / "mask0.png")
    with pytest.raises(UserError, match=r"mask0\.png: 128x160 pixels, but 80x64 go"):
        open_scene("transforms", root).load_views([0])


def test_a_depth_map_that_knows_no_depth_is_told_of(root, caplog):
    for number in range(8):
        np.save(root / f"empty{number}.npy", np.full((64, 80), 2.0 * (number > 0)))
    change(
        root,
        lambda frames: [f.update(depth_file_path=f"empty{n}.npy") for n, f in enumerate(frames)],
    )
    depths = open_scene("transforms", root).load_views([0, 1]).depths
    assert not depths[0].any() and depths[1].all()
    assert caplog.text.count("scene a: a depth map without any depth above 0 is not used") == 1
