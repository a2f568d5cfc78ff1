import pytest
import torch

from models.vggt import FrozenVGGT


@pytest.fixture
def images():
    return torch.rand(1, 2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def test_they_change_nothing_until_trained(tiny_vggt, images):
    before = tiny_vggt.aggregator(images)[0]
    tuned = FrozenVGGT(tiny_vggt, 28, tuned_blocks=1)
    for expected, tokens in zip(before, tuned(images, heads=()).tokens, strict=True):
        read = expected[:, :, tiny_vggt.config.patch_start :].unflatten(2, (2, 2))
        torch.testing.assert_close(tokens, read.permute(0, 1, 4, 2, 3))


def test_gradients_reach_them_and_not_the_network(tiny_vggt, images):
    tuned = FrozenVGGT(tiny_vggt, 28, tuned_blocks=2, tuned_rank=4)
    features = tuned(images)
    features.tokens[-1].square().sum().backward()
    additions = dict(tuned.named_parameters())
    assert all(name.startswith("tuning.") for name in additions)
    assert all(p.grad is not None for n, p in additions.items() if ".up." in n)
    assert any(p.grad.abs().sum() > 0 for p in additions.values() if p.grad is not None)
    assert all(p.grad is None for p in tiny_vggt.parameters())
    assert not features.depth.requires_grad


def test_only_the_last_blocks_are_tuned(tiny_vggt, images):
    tuned = FrozenVGGT(tiny_vggt, 28, tuned_blocks=1)
    before = [tokens.clone() for tokens in tuned(images, heads=()).tokens]
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.fill_(0.1)
    after = tuned(images, heads=()).tokens
    torch.testing.assert_close(after[0], before[0])
    assert not torch.allclose(after[-1], before[-1])


def test_a_state_holds_the_additions_alone(tiny_vggt):
    tuned = FrozenVGGT(tiny_vggt, 28, tuned_blocks=1)
    assert set(tuned.state_dict()) == {name for name, _ in tuned.named_parameters()}


def test_more_blocks_than_there_are(tiny_vggt):
    with pytest.raises(ValueError, match="tuned_blocks=99"):
        FrozenVGGT(tiny_vggt, 28, tuned_blocks=99)
