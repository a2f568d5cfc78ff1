"""The DTU reader: every variant of the layout, and what training and tests see."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from dots import POINTS, assert_dots_match, draw_dots
from dtu_layout import DTUScene
from PIL import Image
from scene_layouts import open_dataset

from datasets.formats.dtu import UNIT
from datasets.formats.images.depth_maps import read_pfm, write_pfm
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from datasets.views import SampleRequest
from utils.errors import UserError

PHOTO_INTRINSICS = np.array([[2892.0, 0.0, 823.2], [0.0, 2883.0, 619.1], [0.0, 0.0, 1.0]])
POINTS_MM = 20 * POINTS


dataset = partial(open_dataset, "dtu")


def scan_views(root, views, scan="scan1", **options):
    return open_scene("dtu", root / scan, ReadOptions(**options)).load_views(views)


def dot_images(size, w2c):
    images = []
    for pose in w2c:
        # The photograph has 1600x1200 pixels, with centres at whole numbers: half less than ours.
        in_camera = (POINTS_MM @ pose[:3, :3].T + pose[:3, 3]) @ PHOTO_INTRINSICS.T
        position, sigma = in_camera[:, :2] / in_camera[:, 2:] + 0.5, 12
        if size == (640, 512):
            position, sigma = position / 2 - [80, 44], 6
        images.append(np.asarray(draw_dots(position, size[::-1], sigma)))
    return np.stack(images)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("cameras", ["Cameras", "Cameras/train"])
@pytest.mark.parametrize("size", [(1600, 1200), (640, 512)])
def test_cameras_project_points_onto_their_pictures(
    tmp_path, tiny_scene, write_dtu_scene, size, cameras, scale
):
    w2c, intrinsics = tiny_scene.w2c[[0, 2, 3, 5]], PHOTO_INTRINSICS.copy()
    if cameras == "Cameras/train":
        intrinsics[:2] /= 2
        intrinsics[:2, 2] -= (80, 44)
        intrinsics[:2] /= 4
    scene = DTUScene(dot_images(size, w2c), intrinsics, w2c)
    write_dtu_scene(tmp_path, "scan1", scene, cameras=cameras)
    scene = open_scene("dtu", tmp_path / "scan1", ReadOptions(scale=scale))
    views = assert_dots_match(scene, POINTS_MM / UNIT.factor, 0.035)
    assert views.size == (round(512 * scale), round(640 * scale))


def test_both_image_sizes_give_the_same_depth(tmp_path, tiny_scene, write_dtu_scene):
    depth, w2c, read = np.add.outer(np.arange(1.0, 1201), np.arange(1600.0)), tiny_scene.w2c[:1], []
    for size in ((1600, 1200), (640, 512)):
        depths = (depth if size[0] == 1600 else depth[::2, ::2][44:556, 80:720])[None]
        images = np.zeros((1, *size[::-1], 3), np.uint8)
        scene = DTUScene(images, PHOTO_INTRINSICS, w2c, depths.astype(np.float32))
        root = tmp_path / str(size[0])
        write_dtu_scene(root, "scan1", scene, cameras="Cameras", depths="Depths_raw/{scan}")
        read.append(scan_views(root, [0]))
    torch.testing.assert_close(read[0].depths, read[1].depths, atol=0, rtol=0)
    torch.testing.assert_close(read[0].cameras, read[1].cameras)


@pytest.mark.parametrize("images", ["Rectified/{scan}_train", "Rectified/{scan}"])
@pytest.mark.parametrize("cameras", ["Cameras", "Cameras/train"])
@pytest.mark.parametrize("depths", ["Depths/{scan}", "Depths/{scan}_train", "Depths_raw/{scan}"])
def test_every_variant_gives_the_same_sample(
    tmp_path, tiny_dtu, tiny_scene, write_dtu_scene, images, cameras, depths
):
    layout = {"images": images, "cameras": cameras, "depths": depths}
    write_dtu_scene(tmp_path, "scan1", tiny_scene, lights=(2, 3), **layout)
    request = SampleRequest(2, 5)
    sample, same = (dataset(root, scan="scan1")[request] for root in (tmp_path, tiny_dtu))
    torch.testing.assert_close(sample.sources, same.sources, rtol=0, atol=0)
    torch.testing.assert_close(sample.targets, same.targets, rtol=0, atol=0)


def test_units_and_ranges(tiny_dtu):
    scene = open_scene("dtu", tiny_dtu / "scan1")
    torch.testing.assert_close(scene.near_far, torch.tensor([425.0, 1.5 * 905.0]) / 200)
    assert (scene.unit.name, scene.unit.factor) == ("mm", 200)
    chosen = open_scene("dtu", tiny_dtu / "scan1", ReadOptions(near_far=(430.0, 900.0)))
    torch.testing.assert_close(chosen.near_far, torch.tensor([2.15, 4.5]))
    depths = scene.load_views([0, 1]).depths
    assert depths.min() > scene.near_far[0] and depths.max() < scene.near_far[1]


def test_sizes_follow_in_everything(tiny_dtu):
    whole, half = scan_views(tiny_dtu, [4]), scan_views(tiny_dtu, [4], scale=0.5)
    assert half.size == (32, 40) and half.depths.shape == half.masks.shape == (1, 32, 40)
    torch.testing.assert_close(half.images, torch.nn.functional.avg_pool2d(whole.images, 2))
    torch.testing.assert_close(half.cameras.intrinsics[:, :2], whole.cameras.intrinsics[:, :2] / 2)
    assert set(half.depths.unique().tolist()) <= set(whole.depths.unique().tolist())
    assert torch.equal(scan_views(tiny_dtu, [4], size=(32, 40)).images, half.images)
    for scale in (0.3, 0.001):
        with pytest.raises(UserError, match="image_scale") as refused:
            scan_views(tiny_dtu, [4], scale=scale)
        remedy = str(refused.value).split("--image_size ")[1].split(" instead")[0]
        size = tuple(map(int, remedy.split()))
        assert scan_views(tiny_dtu, [4], scale=scale, size=size).size == size


def test_draws_are_those_of_earlier_versions(tiny_dtu):
    """Runs resume exactly: the light is drawn first, then the order of the neighbours."""
    data = dataset(tiny_dtu, nearest=6, targets=2, sources=4)
    assert len(data) == 16
    for index, seed, num_sources in ((0, 1, 2), (5, 9, 3), (11, 4, 4)):
        sample = data[SampleRequest(index, seed, num_sources)]
        generator = torch.Generator().manual_seed(seed)
        light = int(torch.randint(2, (), generator=generator))
        order = torch.randperm(6, generator=generator).tolist()
        scene = open_scene("dtu", tiny_dtu / f"scan{1 + index // 8}")
        drawn = [scene.ranked_neighbours(index % 8)[place] for place in order]
        assert sample.source_ids == tuple(drawn[:num_sources])
        assert sample.target_ids == (index % 8, drawn[num_sources])
        shown = scene.load_views(sample.source_ids, scene.lights[light])
        assert torch.equal(sample.sources.images, shown.images)
        assert sample.targets.images.shape == (2, 3, 64, 80)
    with pytest.raises(UserError, match="8 sources"):
        data[SampleRequest(0, num_sources=8)]


def test_all_lights_at_training_and_light_three_at_test(tiny_dtu, dtu_copy, caplog):
    def mean_lights(root, count, **choice):
        data = dataset(root, **choice)
        targets = [data[SampleRequest(0, seed)].targets for seed in range(count)]
        return {round(views.images.mean().item(), 4) for views in targets}

    seen = mean_lights(tiny_dtu, 20)
    lit = scan_views(tiny_dtu, [0]).images[0]
    assert len(seen) == 2 and round(lit.mean().item(), 4) == max(seen)
    sources = dataset(tiny_dtu)[SampleRequest(0, 0)].sources
    assert len({round(image.mean().item(), 1) for image in sources.images}) == 1
    (dtu_copy / "Rectified/scan1_train/rect_004_2_r5000.png").unlink()
    assert len(mean_lights(dtu_copy, 9, scan="scan1")) == 1
    assert "lights that lack some views are not used: 2" in caplog.text


def test_validation_is_fixed_and_sorted_by_distance(tiny_dtu):
    data = dataset(tiny_dtu, "val")
    sample = data[SampleRequest(0, seed=1)]
    assert (sample.scene, sample.target_ids) == ("scan2", (4,))
    assert sample.source_ids == data[SampleRequest(0, seed=2)].source_ids
    distances = (sample.sources.cameras.centers - sample.targets.cameras.centers).abs().sum(-1)
    assert distances.tolist() == sorted(distances.tolist())


def test_masks_and_depth_values(tmp_path, tiny_scene, write_dtu_scene):
    write_dtu_scene(tmp_path / "none", "scan1", replace(tiny_scene, depths=None))
    views = scan_views(tmp_path / "none", [0, 1])
    assert views.depths.shape == (2, 64, 80) and not views.depths.any()
    assert views.masks.dtype == torch.bool and views.masks.all()
    depths = tiny_scene.depths.copy()
    depths[0, 0, :4] = [np.nan, np.inf, -np.inf, -5.0]
    depths[1, 2, 5] = 0
    write_dtu_scene(tmp_path, "scan1", replace(tiny_scene, depths=depths))
    views = scan_views(tmp_path, [0, 1])
    assert views.depths[0, 0, :4].tolist() == [0.0] * 4 and torch.isfinite(views.depths).all()
    torch.testing.assert_close(views.depths[1], torch.from_numpy(depths[1]) / 200)
    assert (~views.masks[1]).nonzero().tolist() == [[2, 5]], "only known depth counts in tests"
    masks = np.full(depths.shape, 255, np.uint8)
    masks[0, 3, 7] = 0
    write_dtu_scene(tmp_path, "scan1", replace(tiny_scene, depths=depths, masks=masks))
    assert (~scan_views(tmp_path, [0, 1]).masks).nonzero().tolist() == [[0, 3, 7]]
    trained = dataset(tmp_path, scan="scan1")[SampleRequest(0, 0)]
    assert trained.targets.masks.all(), "training renders the background too"


def test_quarter_size_depth_is_spread_over_its_pixels(dtu_copy):
    path = dtu_copy / "Depths/scan1/depth_map_0000.pfm"
    quarter = np.ascontiguousarray(read_pfm(path)[::4, ::4])
    write_pfm(path, quarter)
    depths = scan_views(dtu_copy, [0]).depths
    torch.testing.assert_close(depths[0, ::4, ::4], torch.from_numpy(quarter) / 200)
    assert (depths > 0).all()


def test_a_view_without_depth_image_or_camera_leaves_the_rest(dtu_copy, caplog):
    folder = dtu_copy
    (folder / "Depths/scan1/depth_map_0002.pfm").unlink()
    for path in (folder / "Rectified/scan1_train").glob("rect_006_*"):
        path.unlink()
    Image.new("RGB", (80, 64)).save(folder / "Rectified/scan1_train/rect_001_max.png")
    assert len(dataset(folder)) == 15
    assert "7 of 8 views have image and camera" in caplog.text
    assert "rect_006_3_r5000.png" in caplog.text
    assert not scan_views(folder, [2]).depths.any() and scan_views(folder, [3]).depths.all()
    (folder / "Cameras/train/00000003_cam.txt").unlink()
    assert len(dataset(folder)) == 13
    assert "images without a camera file are not used" in caplog.text
    assert "00000003_cam.txt" in caplog.text
    with pytest.raises(UserError, match="no view 5"):
        scan_views(folder, [0, 5])
