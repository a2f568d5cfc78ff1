import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from datasets.procedural.config import SCENE_TYPES, ProceduralConfig
from datasets.procedural.generator import ProceduralBatch, ProceduralGenerator
from datasets.procedural.renderer.textures import COLUMN
from utils.cameras import pixel_grid, project, unproject
from utils.errors import UserError

SIZE = (32, 40)


def sample(scenes, views=2, size=SIZE, **settings) -> ProceduralBatch:
    config = replace(ProceduralConfig(samples=2), **settings)
    return ProceduralGenerator(config).sample(scenes, views, size, 0.5)


def test_a_scene_depends_neither_on_its_batch_nor_on_the_number_of_views():
    together, alone = sample([4, 5], views=3).views, sample([5], views=2).views
    torch.testing.assert_close(alone.images, together.images[1:, :2], rtol=0, atol=2e-3)
    torch.testing.assert_close(alone.depths, together.depths[1:, :2])
    assert torch.equal(alone.cameras.c2w, together.cameras.c2w[1:, :2])
    torch.testing.assert_close(sample([5], samples=5).views.depths, alone.depths)


def test_seeds_and_scenes_differ():
    first = sample([1]).views.cameras.c2w
    for other in (sample([2]), sample([1], seed=1)):
        assert not torch.equal(first, other.views.cameras.c2w)


@pytest.mark.parametrize("scene_type", SCENE_TYPES)
def test_every_kind_of_world_is_in_range(scene_type):
    batch = sample([0, 1], scene_types=(scene_type,))
    images, depths, views = batch.views.images, batch.views.depths, batch.views
    assert images.shape == (2, 2, 3, *SIZE) and images.std() > 0.02
    assert images.isfinite().all() and images.min() >= 0 and images.max() <= 1
    assert depths.isfinite().all() and (depths > 0).any() and views.masks.all()
    near, far = batch.near_far[:, :, None, None, None].unbind(1)
    assert (((depths > near) & (depths < far)) | (depths == 0)).all() and (near > 0).all()
    rotation = views.cameras.c2w[..., :3, :3]
    identity = torch.eye(3).expand_as(rotation)
    torch.testing.assert_close(rotation @ rotation.mT, identity, atol=1e-5, rtol=0)


def test_cameras_are_upright_and_look_at_the_same_place():
    batch = sample(range(6), views=4, size=(16, 16), samples=1)
    right, down, forward = batch.views.cameras.c2w[..., :3, :3].unbind(-1)
    assert (right[..., 2].abs() < 0.2).all() and (down[..., 2] < 0).float().mean() > 0.95
    angles = (forward[:, :1] * forward).sum(-1).clamp(-1, 1).acos()
    assert (angles < math.radians(70)).all()


def test_points_of_one_view_lie_on_the_surfaces_of_another():
    views = sample([3, 6, 10], views=2, size=(48, 64)).views
    depths = views.depths[:, 0].flatten(1)
    points = unproject(pixel_grid(48, 64, depths.device), depths, views.cameras[:, 0])
    seen, expected = project(points, views.cameras[:, 1])
    inside = (seen > 1).all(-1) & (seen < torch.tensor([63, 47])).all(-1) & (depths > 0)
    columns, rows = seen.long().unbind(-1)
    flat = rows.clamp(0, 47) * 64 + columns.clamp(0, 63)
    found = torch.gather(views.depths[:, 1].flatten(1), 1, flat)
    error = ((found - expected).abs() / expected.clamp_min(1e-3))[inside & (found > 0.9 * expected)]
    assert len(error) > 1000
    assert error.median() < 0.01 and (error < 0.05).float().mean() > 0.85
    # Nothing that the other view sees lies far behind what this view says is there.
    assert (found < 0.9 * expected)[inside].float().mean() < 0.4


def test_textureless_worlds_have_the_same_shapes_and_plain_surfaces():
    config = {"scene_types": ("room", "studio"), "samples": 1}
    plain, patterned = (sample(range(3), **config, textureless=share) for share in (1.0, 0.0))
    assert torch.equal(plain.views.depths, patterned.views.depths)
    steps = [v.images.diff(dim=-1).abs().mean((1, 2, 3, 4)) for v in (plain.views, patterned.views)]
    assert (steps[0] < steps[1]).all()
    config = ProceduralConfig(scene_types=("room", "studio"), textureless=1.0)
    rows = ProceduralGenerator(config).prepare(range(3), 1, SIZE).scenes.materials
    assert (rows[..., COLUMN["pattern"]] == 0).all() and (rows[..., COLUMN["noise"]] < 0.11).all()


def test_photographs_are_worn(tmp_path):
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "red.png")
    plain = sample([2], scene_types=("room",)).views.images.mean((0, 1, 3, 4))
    settings = {"texture_folder": str(tmp_path), "photo_share": 1.0, "textureless": 0.0}
    worn = sample([2], scene_types=("room",), **settings).views.images.mean((0, 1, 3, 4))
    assert worn[0] > 2 * worn[1]
    assert plain[0] < 2 * plain[1]


def test_bad_settings_are_refused(tmp_path):
    with pytest.raises(UserError, match="moon"):
        ProceduralConfig(scene_types=("studio", "moon"))
    with pytest.raises(UserError, match="rig"):
        ProceduralConfig(rig="helicopter")
    with pytest.raises(UserError, match="photographs"):
        ProceduralGenerator(ProceduralConfig(texture_folder=str(tmp_path)))
