"""The weights in the repository know geometry."""

from pathlib import Path

import pytest
import torch

from datasets.procedural import ProceduralConfig, ProceduralGenerator
from models.vggt.network import VGGT
from models.vggt_training.evaluation import baseline_prediction, geometry_metrics
from models.vggt_training.held_out import network_predictor

FOLDER = Path(__file__).parents[3] / "ckpts" / "vggt-mini"


@pytest.fixture(scope="module")
def held_out():
    generator = ProceduralGenerator(ProceduralConfig(samples=1), "cpu")
    return generator.sample(range(12), 3, (112, 140), 0.3).views


def test_they_beat_knowing_nothing_on_scenes_never_trained_on(held_out):
    network = VGGT.from_pretrained(FOLDER).eval()
    ours = geometry_metrics(*network_predictor(network)(held_out), held_out).means()
    trivial = geometry_metrics(*baseline_prediction(held_out), held_out).means()
    assert ours["abs_rel"] < 0.6 * trivial["abs_rel"]
    assert ours["auc_30"] > 0.3


def test_they_fit_into_sixteen_mebibytes():
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    assert size <= 16 * 2**20


def test_any_number_of_views_gives_finite_geometry():
    network = VGGT.from_pretrained(FOLDER).eval()
    for views in (1, 5):
        with torch.no_grad():
            seen = network(torch.rand(1, views, 3, 112, 140), heads=("camera", "depth"))
        assert seen.depth.isfinite().all() and (seen.depth > 0).all()
        assert seen.pose_enc.isfinite().all()
