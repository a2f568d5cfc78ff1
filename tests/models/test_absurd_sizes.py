"""Sizes of no model, as damaged and hostile checkpoints declare them: refused, not built."""

from dataclasses import asdict
from functools import partial

import pytest
from tiny_models import TINY_MODEL

from models.baselines.config import BaselineConfig
from models.config import BackboneConfig, ModelConfig
from models.vggt.config import VGGTConfig
from training.config import FineTuningConfig
from utils.config import settings_from_plain
from utils.errors import UserError

CONFIGS = {ModelConfig: TINY_MODEL, BackboneConfig: BackboneConfig()}
CONFIGS |= {BaselineConfig: BaselineConfig(), VGGTConfig: VGGTConfig()}


def numbers(tree, path=()):
    """Yield the places of all numbers and lists of numbers in nested settings."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from numbers(value, (*path, name))
        elif isinstance(value, int | float | tuple) and not isinstance(value, bool):
            yield (*path, name)


def changed(tree, path, change):
    name, *rest = path
    return {**tree, name: changed(tree[name], rest, change) if rest else change(tree[name])}


def in_place_of(large, value):
    return (large,) * len(value) if isinstance(value, tuple) else type(value)(large)


CASES = [(kind, path) for kind, config in CONFIGS.items() for path in numbers(asdict(config))]


@pytest.mark.parametrize(("kind", "path"), CASES, ids=[".".join(path) for _, path in CASES])
def test_every_size_is_bounded(kind, path):
    plain = asdict(CONFIGS[kind])
    assert settings_from_plain(kind, plain, "a.ckpt") == CONFIGS[kind]
    for large in (10**5, 10**9, 10**30, -1):
        absurd = changed(plain, path, partial(in_place_of, large))
        with pytest.raises(UserError, match=f"^a.ckpt: .*{path[-1]}"):
            settings_from_plain(kind, absurd, "a.ckpt")


@pytest.mark.parametrize("name", ["volume_widths", "fine_widths", "decoder_widths"])
def test_a_network_has_few_stages(name):
    for count in (0, 9, 10**5):
        plain = {"volume": {}, "decoder": {}, name: (8,) * count}
        with pytest.raises(UserError, match=rf"{name}=\(.* takes 1 or .* or 8 numbers$"):
            settings_from_plain(ModelConfig, plain, "a.ckpt")


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (ModelConfig, "N_planes", 5.5),
        (ModelConfig, "N_planes", "8"),
        (ModelConfig, "N_planes", None),
        (ModelConfig, "volume_widths", 8),
        (ModelConfig, "volume_widths", [[8]]),
        (ModelConfig, "lindisp", 3),
        (ModelConfig, "pad", True),
        (BackboneConfig, "backbone", "bogus"),
        (BackboneConfig, "vggt_path", 5),
    ],
)
def test_settings_of_other_types_are_refused(kind, name, value):
    with pytest.raises(UserError, match=f"^a.ckpt: {name}=.*: this version takes no such value"):
        settings_from_plain(kind, {name: value}, "a.ckpt")


def test_nothing_is_a_setting_where_it_may_be():
    assert settings_from_plain(FineTuningConfig, {"N_planes": None}, "a").run.N_planes is None
