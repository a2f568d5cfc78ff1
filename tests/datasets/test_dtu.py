"""What the DTU reader gives, for every variant of the layout."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.formats.dtu import MILLIMETRES_TO_SCENE, DTUDataset
from datasets.formats.pfm import read_pfm, write_pfm
from datasets.views import SampleRequest
from utils.cameras import project, unproject

PHOTO_INTRINSICS = np.array([[2892.0, 0.0, 823.2], [0.0, 2883.0, 619.1], [0.0, 0.0, 1.0]])
POINT_MM = np.array([12.0, -7.0, 15.0])


def full_size_position(w2c):
    """The point in the 1600x1200 photograph, with pixel centres at whole numbers."""
    in_camera = w2c[:3, :3] @ POINT_MM + w2c[:3, 3]
    return (PHOTO_INTRINSICS @ in_camera / in_camera[2])[:2]


def dot(width, height, position, sigma):
    """A bright blob on black; ``position`` has pixel centres at whole numbers."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    squared = (columns - position[0]) ** 2 + (rows - position[1]) ** 2
    values = 255 * np.exp(-squared / (2 * sigma**2))
    return (values + 0.5).astype(np.uint8)[..., None].repeat(3, -1)


def dot_images(size, w2c):
    images = []
    for pose in w2c:
        position = full_size_position(pose)
        if size == (640, 512):
            # Halving moves the centre of pixel u to (u + 0.5) / 2 - 0.5; then 80 and 44 are cut.
            position = (position + 0.5) / 2 - 0.5 - np.array([80, 44])
        images.append(dot(size[0], size[1], position, sigma=12 if size[0] == 1600 else 6))
    return np.stack(images)


@pytest.mark.parametrize("image_scale", [1.0, 0.5])
@pytest.mark.parametrize("cameras", ["Cameras", "Cameras/train"])
@pytest.mark.parametrize("size", [(1600, 1200), (640, 512)])
def test_cameras_project_a_point_onto_its_picture(
    tmp_path, tiny_scene, write_dtu_scene, size, cameras, image_scale
):
    w2c = tiny_scene.w2c[[0, 2, 3, 5]]
    intrinsics = PHOTO_INTRINSICS.copy()
    if cameras == "Cameras/train":
        intrinsics[:2] /= 2
        intrinsics[:2, 2] -= (80, 44)
        intrinsics[:2] /= 4
    scene = replace(
        tiny_scene, images=dot_images(size, w2c), file_intrinsics=intrinsics, w2c=w2c, depths=None
    )
    write_dtu_scene(tmp_path, "scan1", scene, cameras=cameras)
    dataset = DTUDataset(tmp_path, "train", image_scale=image_scale, scans=["scan1"])
    views = dataset.load_views("scan1", [0, 1, 2, 3])
    assert views.size == (round(512 * image_scale), round(640 * image_scale))

    point = torch.tensor(POINT_MM, dtype=torch.float32) * MILLIMETRES_TO_SCENE
    projected, _ = project(point.expand(4, 1, 3), views.cameras)
    weights = views.images.mean(1)
    weights = weights / weights.sum((1, 2), keepdim=True)
    rows = torch.arange(views.size[0]) + 0.5
    columns = torch.arange(views.size[1]) + 0.5
    seen = torch.stack([(weights * columns).sum((1, 2)), (weights * rows[:, None]).sum((1, 2))], -1)
    assert (projected[:, 0] - seen).norm(dim=-1).max() < 0.05


def test_both_image_sizes_give_the_same_sample(tmp_path, tiny_scene, write_dtu_scene):
    w2c = tiny_scene.w2c[:4]
    samples = []
    for size in ((1600, 1200), (640, 512)):
        root = tmp_path / str(size[0])
        depth = np.add.outer(np.arange(1200.0), np.arange(1600.0)).astype(np.float32) + 1
        if size[0] == 640:
            depth = depth[::2, ::2][44:556, 80:720]
        scene = replace(
            tiny_scene,
            images=dot_images(size, w2c),
            file_intrinsics=PHOTO_INTRINSICS,
            w2c=w2c,
            depths=np.stack([depth] * 4),
        )
        write_dtu_scene(root, "scan1", scene, cameras="Cameras", depths="Depths_raw/{scan}")
        dataset = DTUDataset(root, "train", scans=["scan1"])
        samples.append(dataset[SampleRequest(1, 3)])
    for views, others in zip(
        (samples[0].sources, samples[0].targets),
        (samples[1].sources, samples[1].targets),
        strict=True,
    ):
        torch.testing.assert_close(views.images, others.images, atol=2 / 255, rtol=0)
        torch.testing.assert_close(views.depths, others.depths, atol=0, rtol=0)
        torch.testing.assert_close(views.cameras.intrinsics, others.cameras.intrinsics)
        torch.testing.assert_close(views.cameras.c2w, others.cameras.c2w)


VARIANTS = [
    {"images": images, "cameras": cameras, "depths": depths}
    for images in ("Rectified/{scan}_train", "Rectified/{scan}")
    for cameras in ("Cameras", "Cameras/train")
    for depths in ("Depths/{scan}", "Depths/{scan}_train", "Depths_raw/{scan}")
]


@pytest.mark.parametrize("layout", VARIANTS, ids=lambda layout: " ".join(layout.values()))
def test_every_variant_gives_the_same_sample(
    tmp_path, tiny_dtu, tiny_scene, write_dtu_scene, layout
):
    write_dtu_scene(tmp_path, "scan1", tiny_scene, **layout)
    sample = DTUDataset(tmp_path, "train", scans=["scan1"])[SampleRequest(2, 5)]
    shutil.copytree(tiny_dtu, tmp_path / "same")
    for path in (tmp_path / "same" / "Rectified").rglob("rect_*_2_*"):
        path.unlink()
    same = DTUDataset(tmp_path / "same", "train", scans=["scan1"])[SampleRequest(2, 5)]
    assert torch.equal(sample.sources.images, same.sources.images)
    assert torch.equal(sample.targets.depths, same.targets.depths)
    assert torch.equal(sample.sources.cameras.intrinsics, same.sources.cameras.intrinsics)


def test_units_and_depth_agree_with_the_cameras(tiny_dtu):
    sample = DTUDataset(tiny_dtu, "train")[SampleRequest(0, 0)]
    torch.testing.assert_close(sample.near_far, torch.tensor([425.0, 1.5 * 905.0]) / 200)
    target, source = sample.targets, sample.sources
    assert target.depths.min() > sample.near_far[0]
    assert target.depths.max() < sample.near_far[1]
    height, width = target.size
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(1, -1, 2) + 0.5
    points = unproject(pixels, target.depths.flatten(1), target.cameras)
    seen, depths = project(points, source.cameras)
    grid = (seen / torch.tensor([width, height]) * 2 - 1)[:, None]
    sampled = torch.nn.functional.grid_sample(source.images, grid, align_corners=False)[:, :, 0]
    known = torch.nn.functional.grid_sample(source.depths[:, None], grid, align_corners=False)
    visible = (known[:, 0, 0] - depths).abs() < 0.02
    errors = (sampled - target.images.flatten(2)).square().mean(1)[visible]
    assert visible.float().mean() > 0.5
    assert errors.mean() < 1e-4


def test_image_scale_follows_in_everything(tiny_dtu):
    whole = DTUDataset(tiny_dtu, "val")[SampleRequest(0)].targets
    half = DTUDataset(tiny_dtu, "val", image_scale=0.5)[SampleRequest(0)].targets
    assert half.size == (32, 40)
    assert half.depths.shape == half.masks.shape == (1, 32, 40)
    pooled = torch.nn.functional.avg_pool2d(whole.images, 2)
    torch.testing.assert_close(half.images, pooled)
    torch.testing.assert_close(half.cameras.intrinsics[:, :2], whole.cameras.intrinsics[:, :2] / 2)
    assert set(half.depths.unique().tolist()) <= set(whole.depths.unique().tolist())


def test_training_draws_depend_on_the_seed_alone(tiny_dtu):
    dataset = DTUDataset(tiny_dtu, "train", num_nearest=5, max_sources=4)
    assert len(dataset) == 16
    drawn = [dataset[SampleRequest(3, seed, 3)] for seed in range(30)]
    again = dataset[SampleRequest(3, 7, 3)]
    assert again.source_ids == drawn[7].source_ids
    assert torch.equal(again.sources.images, drawn[7].sources.images)
    used = {view for sample in drawn for view in sample.source_ids}
    assert len(used) == 5
    assert all(sample.target_ids == (3,) for sample in drawn)
    assert all(len(set(sample.source_ids)) == 3 for sample in drawn)
    assert 3 not in used


@pytest.mark.parametrize("num_sources", [2, 3, 4])
def test_number_of_sources_and_targets_is_as_asked(tiny_dtu, num_sources):
    dataset = DTUDataset(tiny_dtu, "train", max_sources=4, num_targets=2)
    sample = dataset[SampleRequest(0, 1, num_sources)]
    assert sample.sources.images.shape == (num_sources, 3, 64, 80)
    assert sample.targets.images.shape == (2, 3, 64, 80)
    assert len({*sample.source_ids, *sample.target_ids}) == num_sources + 2


def test_all_lights_at_training_and_light_three_at_test(tiny_dtu):
    train = DTUDataset(tiny_dtu, "train")
    lit = train.load_views("scan1", [0]).images[0]
    seen = {
        round(train[SampleRequest(0, seed)].targets.images.mean().item(), 4) for seed in range(20)
    }
    assert len(seen) == 2
    assert round(lit.mean().item(), 4) == max(seen)
    sample = train[SampleRequest(0, 0)]
    brightness = {round(image.mean().item(), 1) for image in sample.sources.images}
    assert len(brightness) == 1


def test_incomplete_lights_are_not_drawn(tmp_path, tiny_dtu, caplog):
    shutil.copytree(tiny_dtu, tmp_path / "dtu")
    (tmp_path / "dtu/Rectified/scan1_train/rect_004_2_r5000.png").unlink()
    dataset = DTUDataset(tmp_path / "dtu", "train", scans=["scan1"])
    means = {
        round(dataset[SampleRequest(0, seed)].targets.images.mean().item(), 4) for seed in range(9)
    }
    assert len(means) == 1
    assert "1 scans have lights that lack some views" in caplog.text


def test_validation_is_fixed_and_sorted_by_distance(tiny_dtu):
    dataset = DTUDataset(tiny_dtu, "val")
    sample = dataset[SampleRequest(0, seed=1)]
    assert (sample.scene, sample.target_ids) == ("scan2", (4,))
    assert sample.source_ids == dataset[SampleRequest(0, seed=2)].source_ids
    distances = (sample.sources.cameras.centers - sample.targets.cameras.centers).abs().sum(-1)
    assert distances.tolist() == sorted(distances.tolist())


def test_unknown_depth_is_zero_and_masks_are_true_without_files(
    tmp_path, tiny_scene, write_dtu_scene
):
    write_dtu_scene(tmp_path, "scan1", replace(tiny_scene, depths=None))
    views = DTUDataset(tmp_path, "train", scans=["scan1"]).load_views("scan1", [0, 1])
    assert views.depths.shape == (2, 64, 80)
    assert not views.depths.any()
    assert views.masks.dtype == torch.bool
    assert views.masks.all()


def test_bad_depth_values_become_zero_and_masks_are_read(tmp_path, tiny_scene, write_dtu_scene):
    depths = tiny_scene.depths.copy()
    depths[0, 0, :4] = [np.nan, np.inf, -np.inf, -5.0]
    masks = np.full(depths.shape, 255, np.uint8)
    masks[0, 3, 7] = 0
    write_dtu_scene(tmp_path, "scan1", replace(tiny_scene, depths=depths, masks=masks))
    views = DTUDataset(tmp_path, "train", scans=["scan1"]).load_views("scan1", [0, 1])
    assert views.depths[0, 0, :4].tolist() == [0.0] * 4
    assert torch.isfinite(views.depths).all()
    assert views.masks.all(), "training renders the background too"
    held_out = DTUDataset(tmp_path, "test", scans=["scan1"]).load_views("scan1", [0, 1])
    assert (~held_out.masks).nonzero().tolist() == [[0, 3, 7]]
    torch.testing.assert_close(views.depths[1], torch.from_numpy(depths[1]) / 200)


def test_evaluation_counts_pixels_with_depth_when_there_is_no_mask(
    tmp_path, tiny_scene, write_dtu_scene
):
    depths = tiny_scene.depths.copy()
    depths[1, 2, 5] = 0
    write_dtu_scene(tmp_path, "scan1", replace(tiny_scene, depths=depths))
    views = DTUDataset(tmp_path, "test", scans=["scan1"]).load_views("scan1", [0, 1])
    assert (~views.masks).nonzero().tolist() == [[1, 2, 5]]


def test_quarter_size_depth_is_spread_over_its_pixels(tmp_path, tiny_dtu):
    shutil.copytree(tiny_dtu, tmp_path / "dtu")
    path = tmp_path / "dtu/Depths/scan1/depth_map_0000.pfm"
    whole = read_pfm(path)
    write_pfm(path, np.ascontiguousarray(whole[::4, ::4]))
    views = DTUDataset(tmp_path / "dtu", "train").load_views("scan1", [0])
    torch.testing.assert_close(views.depths[0, ::4, ::4], torch.from_numpy(whole[::4, ::4]) / 200)
    assert (views.depths > 0).all()


def test_a_view_without_depth_or_image_leaves_the_rest(tmp_path, tiny_dtu, caplog):
    shutil.copytree(tiny_dtu, tmp_path / "dtu")
    (tmp_path / "dtu/Depths/scan1/depth_map_0002.pfm").unlink()
    for path in (tmp_path / "dtu/Rectified/scan1_train").glob("rect_006_*"):
        path.unlink()
    dataset = DTUDataset(tmp_path / "dtu", "train")
    assert len(dataset) == 15
    assert "1 of 2 scans have fewer than 8 views: scan1 (7)" in caplog.text
    assert not dataset.load_views("scan1", [2]).depths.any()
    assert dataset.load_views("scan1", [3]).depths.all()


def test_images_of_other_names_are_passed_over(tmp_path, tiny_dtu):
    shutil.copytree(tiny_dtu, tmp_path / "dtu")
    Image.new("RGB", (80, 64)).save(tmp_path / "dtu/Rectified/scan1_train/rect_001_max.png")
    assert len(DTUDataset(tmp_path / "dtu", "train")) == 16
