"""General training and fine-tuning of models with bundles, second level and decoder."""

import math
from types import SimpleNamespace

import pytest
from tiny_models import save_general
from training_runs import as_flags, same_run, train

from models.checkpoint import load_finetuned, read_checkpoint

pytestmark = pytest.mark.filterwarnings("default")
BUNDLES = {
    "bundle_size": 2,
    "fine_planes": 3,
    "composited_channels": 4,
    "N_samples": 3,
    "batch_size": 144,
    "ssim_weight": 0.1,
    "source_planes_weight": 0.05,
    "num_epochs": 2,
}


@pytest.fixture
def with_bundles(request, general, scene, bundle_model, tiny_backbone, tmp_path):
    if request.param == "general":
        flags = ["--decoder_widths", "8", "16", "--fine_widths", "8", *as_flags(BUNDLES)]
        return SimpleNamespace(**{**vars(general), "flags": [*general.flags, *flags], "steps": 10})
    start = save_general(bundle_model, tiny_backbone, tmp_path)
    flags = as_flags({"init_ckpt": start, "batch_size": 144, "ssim_weight": 0.1})
    return SimpleNamespace(**{**vars(scene), "flags": [*scene.flags, *flags]})


@pytest.mark.parametrize(
    ("with_bundles", "cut"), [("general", 6), ("scene", 4)], indirect=["with_bundles"]
)
def test_crash_and_resume(with_bundles, cut, tmp_path):
    losses, whole = train(with_bundles, tmp_path / "whole")
    assert all(map(math.isfinite, losses.values())) and len(losses) == with_bundles.steps
    _, path = train(with_bundles, tmp_path / "parts", at=cut)
    _, path = train(with_bundles, tmp_path / "parts", "--ckpt", path)
    assert same_run(with_bundles, whole, path)
    if with_bundles.script == "train_vggt_nerf_pl.py":
        assert read_checkpoint(str(path)).build_model().decoder is not None
    else:
        images = load_finetuned(path).render(load_finetuned(path).scene.cameras[:1], size=(15, 21))
        assert images.rgb.shape[-2:] == (15, 21) and images.rgb.isfinite().all()
