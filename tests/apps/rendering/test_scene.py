"""A general model and photographs as a scene that can be rendered."""

import torch

from datasets.views import Views


def test_a_view_is_what_the_model_renders(general, tiny_model, drawn_scene):
    camera, sources = general.cameras[2], (1, 3, 4)
    view = general.render(camera, (16, 20), sources)
    near_far = drawn_scene.near_far[None]
    views = drawn_scene.load_views(sources)
    batch = Views(views.images[None], views.cameras[None], views.depths[None], views.masks[None])
    encoded = tiny_model.encode(batch, near_far)
    truth = tiny_model.render_images(encoded, camera[None], near_far, (16, 20))
    torch.testing.assert_close(view.rgb, truth.rgb[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(view.depth, truth.depth[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(view.opacity, truth.opacity[0], atol=1e-5, rtol=0)
    assert torch.equal(view.rgb, general.render(camera, (16, 20), (4, 3, 1)).rgb)


def test_source_sets_are_encoded_once_and_forgotten_in_turn(general, monkeypatch):
    calls = []
    model = type(general.model)
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda self, *a: calls.append(1) or encode(self, *a))
    known, others = [(0, 3), (1, 3), (2, 3)], [(0, 1), (1, 2), (0, 2), (0, 4)]
    for sets, encoded in ((2 * known, 3), (others, 7), (known[:1], 8)):
        for sources in sets:
            general.render(general.cameras[0], (8, 8), sources)
        assert len(calls) == encoded


def test_sampling_can_be_changed_without_touching_the_scene(general):
    camera, sources = general.cameras[0], (1, 2, 3)
    before = general.render(camera, (16, 20), sources)
    other = general.with_sampling(1.0, 9.0, 5)
    assert other.n_samples == 5 and general.n_samples == 3
    assert not torch.allclose(before.depth, other.render(camera, (16, 20), sources).depth)
    assert torch.equal(before.rgb, general.render(camera, (16, 20), sources).rgb)
    fewer = general.with_sampling(*general.near_far.tolist(), 2)
    assert not torch.allclose(before.rgb, fewer.render(camera, (16, 20), sources).rgb)


def test_fingerprints_tell_weights_and_settings_apart(general, tiny_model):
    first = general.fingerprint()
    assert first == general.fingerprint()
    for others in ((2.0, 6.0, 7), (2.0, 7.0, 8)):
        assert first != general.with_sampling(*others).fingerprint()
    parameter = next(tiny_model.parameters())
    with torch.no_grad():
        parameter.flatten()[0] += 1
        changed = general.fingerprint()
        parameter.flatten()[0] -= 1
    assert changed != first
