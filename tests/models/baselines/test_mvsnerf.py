"""MVSNeRF: its parts against slow references, its authors' checkpoint, its scenes."""

from dataclasses import replace

import pytest
import torch
from reference_data import SCENES, SHARED
from torch import nn

from datasets.config import DataChoice
from datasets.protocols import scene_tasks
from datasets.views import collate_samples
from evaluation.rendering import task_sample
from evaluation.scores import psnr_from_mse
from models.baselines.config import BaselineConfig
from models.baselines.mvsnerf.encoding_volume import build_cost_volume
from models.baselines.mvsnerf.model import MVSNeRF
from models.baselines.mvsnerf.networks import ActivatedNorm, encode_positions
from models.baselines.mvsnerf.scene_model import encode_scene
from models.checkpoints.baselines import MVSNERF_PARTS, BaselineCheckpoint
from models.checkpoints.general import read_model_file
from utils.cameras import Cameras, pixel_rays, project, unproject
from utils.checkpoints import load_safely, save_atomically
from utils.errors import UserError

SMALL = BaselineConfig(ray_samples=6, encoding_planes=8, encoding_pad=4)
OFFICIAL, FERN = SHARED / "mvsnerf" / "mvsnerf-v0.tar", SCENES / "llff" / "fern"


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MVSNeRF(SMALL).eval()


@pytest.fixture
def sources(make_views):
    return make_views(2, 3, size=(64, 64))


NEAR_FAR = torch.tensor([[2.0, 6.0], [2.0, 6.0]])


def test_the_norm_is_that_of_in_place_activated_batch_norm():
    norm, x = ActivatedNorm(2), torch.randn(3, 2, 4, 5)
    norm.weight.data, norm.bias.data = torch.tensor([-2.0, 0.0]), torch.tensor([0.5, -1.0])
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    scale = torch.tensor([2.0 + 1e-5, 1e-5])
    expected = (x - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
    expected = expected * scale[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), nn.functional.leaky_relu(expected, 0.01))
    assert torch.equal(norm.eval()(x), norm.train()(x))


def test_positions_are_followed_by_sines_then_cosines():
    encoded = encode_positions(torch.tensor([0.1, 0.2, 0.3]))
    assert encoded.shape == (63,)
    torch.testing.assert_close(encoded[3:9], torch.tensor([0.1, 0.2, 0.3, 0.2, 0.4, 0.6]).sin())
    torch.testing.assert_close(encoded[33:36], torch.tensor([0.1, 0.2, 0.3]).cos())


def bilinear(image, x, y):
    """Read (channel, row, column) at a place between cells, 0 beyond the outermost."""
    total = torch.zeros(len(image))
    for row in (int(y // 1), int(y // 1) + 1):
        for column in (int(x // 1), int(x // 1) + 1):
            weight = (1 - abs(x - column)) * (1 - abs(y - row))
            if 0 <= row < image.shape[1] and 0 <= column < image.shape[2]:
                total = total + weight * image[:, row, column]
    return total


def test_the_cost_volume_is_the_variance_over_the_views_that_see_a_cell(make_cameras):
    """Cell (i, j) of a feature map is the middle of pixel (4i, 4j)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 32, 32, generator=generator)
    features = torch.rand(3, 4, 8, 8, generator=generator)
    cameras, pad = make_cameras(3, size=(32, 32)), 2
    depths = torch.tensor([3.0, 5.0])
    volume = build_cost_volume(images, features, cameras, depths, pad)[0]
    assert volume.shape == (9 + 4, 2, 12, 12)
    small = nn.functional.interpolate(images, (8, 8), mode="bilinear")
    for plane, row, column in ((0, 5, 4), (1, 9, 9), (0, 0, 3), (1, 6, 11)):
        i, j = column - pad, row - pad
        point = unproject(
            torch.tensor([[4.0 * i + 0.5, 4.0 * j + 0.5]]), depths[plane, None], cameras[0]
        )
        inside = 0 <= i < 8 and 0 <= j < 8
        seen = [features[0, :, j, i] if inside else torch.zeros(4)]
        colors = [small[0, :, j, i] if inside else torch.zeros(3)]
        count = 1
        for view in (1, 2):
            pixel = project(point, cameras[view])[0][0]
            x, y = ((pixel - 0.5) / 4).tolist()
            seen.append(bilinear(features[view], x, y))
            colors.append(bilinear(small[view], x, y))
            count += 0 < x < 7 and 0 < y < 7
        total, squares = sum(seen), sum(value.square() for value in seen)
        expected = squares / count - (total / count).square()
        found = volume[:, plane, row, column]
        torch.testing.assert_close(found[9:], expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[:9], torch.cat(colors), atol=1e-4, rtol=1e-4)


def test_scenes_of_a_batch_do_not_see_each_other(model, sources):
    both = model.encode(sources, NEAR_FAR)
    for scene in (0, 1):
        alone = model.encode(sources[scene : scene + 1], NEAR_FAR[:1])
        torch.testing.assert_close(alone.volume, both.volume[scene : scene + 1])


def test_images_are_rendered_whole_in_chunks_of_any_size(model, sources, make_cameras):
    scene = model.encode(sources, NEAR_FAR)
    target = make_cameras(2, size=(20, 30))
    whole = model.render_images(scene, target, NEAR_FAR, (20, 30))
    parts = model.render_images(scene, target, NEAR_FAR, (20, 30), chunk=77)
    torch.testing.assert_close(whole.rgb, parts.rgb)
    assert whole.rgb.shape == (2, 3, 20, 30) and bool(
        ((whole.opacity >= 0) & (whole.opacity <= 1)).all()
    )
    assert bool(((whole.depth >= 2) & (whole.depth <= 6.0001)).all())


def test_the_unit_of_the_scene_matters_if_alpha_is_per_length(model, sources, make_cameras):
    # Side by side, cells would lie exactly on the border of another view.
    c2w = sources.cameras.c2w.clone()
    c2w[..., 1, 3] = torch.tensor([0.0, 0.03, 0.07])
    sources = replace(sources, cameras=Cameras(sources.cameras.intrinsics, c2w))
    target, rendered = make_cameras(2, size=(8, 8)), {}
    for alpha in ("per_sample", "per_length"):
        model.config = replace(SMALL, ray_alpha=alpha)
        for unit in (1.0, 8.0):
            scaled = replace(sources, cameras=sources.cameras.scaled_world(unit))
            scene = model.encode(scaled, NEAR_FAR * unit)
            camera = target.scaled_world(unit)
            images = model.render_images(scene, camera, NEAR_FAR * unit, (8, 8))
            rendered[alpha, unit] = images.opacity
    small, large = (rendered["per_sample", unit] for unit in (1.0, 8.0))
    torch.testing.assert_close(small, large, atol=1e-3, rtol=1e-3)
    small, large = (rendered["per_length", unit] for unit in (1.0, 8.0))
    assert (large - small).mean() > 0.05


def test_sides_that_are_no_multiple_are_cut_from_the_lower_right(model, make_views):
    sources = make_views(1, 3, size=(70, 90))
    scene = model.encode(sources, NEAR_FAR[:1])
    assert torch.equal(scene.images, sources.images[..., :64, :64])


@pytest.mark.parametrize(
    ("views", "size", "words"), [(2, (64, 64), "--n_views 3"), (3, (64, 31), "32 pixels")]
)
def test_what_it_cannot_read_is_refused(model, make_views, views, size, words):
    with pytest.raises(UserError, match=words):
        model.encode(make_views(1, views, size=size), NEAR_FAR[:1])


def test_its_authors_file_is_read(mvsnerf_file):
    checkpoint = read_model_file(str(mvsnerf_file)).with_overrides(None, N_samples=6, N_planes=8)
    assert isinstance(checkpoint, BaselineCheckpoint) and checkpoint.step == 12
    read = checkpoint.build_model()
    assert isinstance(read, MVSNeRF) and read.num_samples == 6
    content = load_safely(mvsnerf_file)
    for part in MVSNERF_PARTS:
        for name, value in content[part].items():
            assert "running" in name or torch.equal(read.state_dict()[name], value)
    with pytest.raises(UserError, match="--sampling_floor"):
        checkpoint.with_overrides(None, sampling_floor=0.5)


def test_a_scene_that_its_authors_code_tuned_is_refused(mvsnerf_file, tmp_path):
    path = tmp_path / "latest.tar"
    save_atomically({**load_safely(mvsnerf_file), "volume": {}}, path)
    with pytest.raises(UserError, match="fine-tuned.*--init_ckpt"):
        read_model_file(str(path))


def test_a_scene_renders_from_the_views_in_the_middle_like_the_model(model, make_views):
    views = make_views(1, 5, size=(32, 32))[0]
    scene = encode_scene(model, views, NEAR_FAR[0])
    assert scene.source_views.tolist() == [2, 1, 3]
    camera = Cameras(views.cameras.intrinsics[:1], views.cameras.c2w[:1])
    sources = model.encode(views[[2, 1, 3]][None], NEAR_FAR[:1])
    expected = model.render_images(sources, camera, NEAR_FAR[:1], (8, 8))
    torch.testing.assert_close(scene.render_images(camera, (8, 8)).rgb, expected.rgb)
    assert not any(name.startswith("model.feature") for name in scene.scene_state())


@pytest.mark.data
@pytest.mark.skipif(not (OFFICIAL.exists() and FERN.exists()), reason="no reference data")
def test_the_official_checkpoint_renders_fern():
    """Smaller than for the published 22.4 dB, with half of the planes; nearest source: 13 dB."""
    model = read_model_file(str(OFFICIAL)).with_overrides(None, N_planes=64).build_model()
    task = scene_tasks(DataChoice(dataset_name="llff", datadir=str(FERN), image_size=(96, 128)))[0]
    batch = collate_samples([task_sample(task, 0)])
    scene = model.encode(batch.sources, batch.near_far)
    rows, columns = torch.arange(10, 86, 5), torch.arange(13, 115, 5)
    at = torch.cartesian_prod(rows, columns)
    rays = pixel_rays(batch.targets.cameras[:, 0], at.flip(1) + 0.5)
    rendered = model.render_rays(scene, rays, batch.near_far)
    truth = batch.targets.images[0, 0][:, at[:, 0], at[:, 1]].T
    quality = psnr_from_mse((rendered.rgb[0] - truth).square().mean())
    assert quality > 19, quality
