"""Painted pictures and the tone curve of photographs."""

import torch

from apps.make_textures import dead_leaves, main
from datasets.formats.images.decoding import read_image
from datasets.procedural.renderer.rendering import apply_contrast


def test_a_picture_is_a_function_of_its_seed_with_structure_at_every_scale():
    picture = dead_leaves(128, 3)
    assert picture.shape == (3, 128, 128) and 0 <= picture.min() and picture.max() <= 1
    assert torch.equal(picture, dead_leaves(128, 3))
    assert not torch.allclose(picture, dead_leaves(128, 4), atol=0.05)
    for seed in range(4):
        picture = dead_leaves(128, seed).mean(0, keepdim=True)
        for _ in range(4):
            small = torch.nn.functional.avg_pool2d(picture, 2)
            lost = picture - small.repeat_interleave(2, -1).repeat_interleave(2, -2)
            assert lost.std() > 0.01
            picture = small


def test_the_tool_writes_pictures_and_overwrites_none(tmp_path, caplog):
    flags = ["--out", str(tmp_path / "textures"), "--count", "2", "--side", "32"]
    assert main(flags) == 0
    written = sorted((tmp_path / "textures").iterdir())
    assert [path.name for path in written] == ["leaves_000.jpg", "leaves_001.jpg"]
    assert read_image(written[0]).shape == (32, 32, 3)
    assert main(flags) == 2
    assert "already contains textures" in caplog.text


def test_contrast_keeps_black_grey_and_white_and_steepens_the_middle():
    image = torch.linspace(0, 1, 5).expand(1, 3, 1, 5)
    for slope in (1.0, 1.7):
        shown = apply_contrast(image, torch.full((1, 1, 1, 1), slope))[0, 0, 0]
        torch.testing.assert_close(shown[[0, 2, 4]], torch.tensor([0.0, 0.5, 1.0]))
    step = torch.tensor([0.495, 0.505]).expand(1, 3, 1, 2)
    shown = apply_contrast(step, torch.full((1, 1, 1, 1), 1.7))[0, 0, 0]
    torch.testing.assert_close(shown.diff(), torch.tensor([0.017]), rtol=1e-3, atol=0)
    torch.testing.assert_close(apply_contrast(image, torch.ones(1, 1, 1, 1)), image)
