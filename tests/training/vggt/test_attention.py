import pytest
import torch
from torch import nn

from datasets.views import Views
from models.vggt.block import Attention
from models.vggt.config import VGGTConfig
from models.vggt.initialization import random_vggt
from models.vggt.rope import grid_rotations
from training.vggt.attention import AttentionTeacher, _attention_logits
from training.vggt.matching import (
    NO_MATCH,
    MatchingConfig,
    find_matches,
    reference_views,
)

CONFIG = MatchingConfig(attention_blocks=(1, 3), attention_heads=2)


def test_the_judged_attention_is_the_networks_own():
    torch.manual_seed(0)
    attention = Attention(16, 2, qk_norm=True)
    nn.init.eye_(attention.proj.weight)
    nn.init.zeros_(attention.proj.bias)
    rotations = grid_rotations((2, 3), 1, 8, torch.device("cpu"))
    tokens = torch.randn(3, 7, 16)
    shares = _attention_logits(attention, tokens, rotations, heads=1).softmax(-1)[:, 0]
    values = attention.qkv(tokens)[..., 32:40]
    torch.testing.assert_close(shares @ values, attention(tokens, rotations)[..., :8])


def judged(network, views: Views):
    teacher = AttentionTeacher(network.aggregator, CONFIG)
    others = reference_views(views.images.shape[1])
    matches = find_matches(views, others, 14, 0.03).patches

    def step():
        network.aggregator(views.images)
        return teacher.judge(matches, others)

    return step


def test_heads_learn_where_to_look(network_config: VGGTConfig, views: Views):
    network = random_vggt(network_config, 0, 1.0)
    step = judged(network, views)
    optimizer = torch.optim.Adam(network.aggregator.parameters(), 3e-3)
    first = step()
    for _ in range(60):
        result = step()
        result.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert result.loss < 0.6 * first.loss
    assert result.accuracy > 4 * first.accuracy


def test_only_taught_blocks_and_those_before_them_are_taught(
    network_config: VGGTConfig, views: Views
):
    network = random_vggt(network_config, 0, 1.0)
    judged(network, views)().loss.backward()
    reached = {name for name, p in network.named_parameters() if p.grad is not None}
    assert "aggregator.patch_embed.patch_embed.proj.weight" in reached
    assert "aggregator.global_blocks.3.attn.qkv.weight" in reached
    assert "aggregator.global_blocks.3.mlp.fc1.weight" not in reached
    values = network.aggregator.global_blocks[3].attn.qkv.weight.grad[32:]
    assert (values == 0).all()


def test_no_matches_cost_nothing(network_config: VGGTConfig, views: Views):
    network = random_vggt(network_config, 0)
    teacher = AttentionTeacher(network.aggregator, CONFIG)
    network.aggregator(views.images)
    result = teacher.judge(torch.full((2, 3, 24), NO_MATCH), [1, 0, 0])
    assert result.loss == 0
    assert result.accuracy == 0


def test_nothing_is_kept_of_what_was_seen(network_config: VGGTConfig, views: Views):
    network = random_vggt(network_config, 0)
    teacher = AttentionTeacher(network.aggregator, CONFIG)
    network.aggregator(views.images)
    teacher.forget()
    with pytest.raises(RuntimeError):
        teacher.judge(torch.zeros(2, 3, 24, dtype=torch.long), [1, 0, 0])
