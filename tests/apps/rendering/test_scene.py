"""A general model and photographs as a scene that can be rendered."""

import torch

from apps.rendering.scene import RenderableScene
from utils.cameras import Cameras


def test_a_picture_is_what_the_model_renders(general, tiny_model, drawn_scene):
    scene: RenderableScene = general
    camera, places = scene.cameras[2], (1, 3, 4)
    picture = scene.render(camera, (16, 20), places)
    sample = drawn_scene.sample(2, places, 3)
    views = drawn_scene.load_views(places)
    batched = Cameras(views.cameras.intrinsics[None], views.cameras.c2w[None])
    encoded = tiny_model.encode(
        type(views)(views.images[None], batched, views.depths[None], views.masks[None]),
        sample.near_far[None],
    )
    one = Cameras(camera.intrinsics[None], camera.c2w[None])
    truth = tiny_model.render_images(encoded, one, sample.near_far[None], (16, 20))
    torch.testing.assert_close(picture.rgb, truth.rgb[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(picture.depth, truth.depth[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(picture.opacity, truth.opacity[0], atol=1e-5, rtol=0)
    assert torch.equal(picture.rgb, scene.render(camera, (16, 20), (4, 3, 1)).rgb)


def test_source_sets_are_encoded_once_and_forgotten_in_turn(general, monkeypatch):
    calls = []
    encode = type(general.model).encode
    monkeypatch.setattr(
        type(general.model), "encode", lambda self, *a: calls.append(1) or encode(self, *a)
    )
    camera = general.cameras[0]
    for first in (0, 1, 2, 0, 1, 2):
        general.render(camera, (8, 8), (first, 3))
    assert len(calls) == 3
    for first, last in ((0, 1), (1, 2), (0, 2), (0, 4)):
        general.render(camera, (8, 8), (first, last))
    assert len(calls) == 7
    general.render(camera, (8, 8), (0, 3))
    assert len(calls) == 8


def test_sampling_can_be_changed_without_touching_the_scene(general):
    camera, places = general.cameras[0], (1, 2, 3)
    before = general.render(camera, (16, 20), places)
    other = general.with_sampling(1.0, 9.0, 5)
    changed = other.render(camera, (16, 20), places)
    assert other.n_samples == 5 and general.n_samples == 8
    assert not torch.allclose(before.depth, changed.depth)
    assert torch.equal(before.rgb, general.render(camera, (16, 20), places).rgb)
    fewer = general.with_sampling(*general.near_far.tolist(), 3)
    assert not torch.allclose(before.rgb, fewer.render(camera, (16, 20), places).rgb)


def test_fingerprints_tell_weights_and_settings_apart(general, tiny_model):
    first = general.fingerprint()
    assert first == general.fingerprint()
    assert first != general.with_sampling(2.0, 6.0, 7).fingerprint()
    assert first != general.with_sampling(2.0, 7.0, 8).fingerprint()
    parameter = next(tiny_model.parameters())
    with torch.no_grad():
        parameter.flatten()[0] += 1
        changed = general.fingerprint()
        parameter.flatten()[0] -= 1
    assert changed != first
