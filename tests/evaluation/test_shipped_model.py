"""The general model in the repository renders scenes that it has never seen."""

from pathlib import Path

import torch

from datasets.procedural.config import HELD_OUT_SEED, ProceduralConfig
from datasets.procedural.data_module import held_out_sample
from datasets.procedural.generator import ProceduralGenerator
from evaluation.scores import psnr
from models.checkpoints.general import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def test_it_beats_the_nearest_photograph_by_far(monkeypatch):
    monkeypatch.chdir(ROOT)
    model = read_checkpoint("ckpts/vggt-mini-nerf").build_model()
    generator = ProceduralGenerator(ProceduralConfig(seed=HELD_OUT_SEED, samples=1), "cpu")
    sample = held_out_sample(generator.sample([0, 1], 4, (96, 128), 0.3), [0, 1])
    target = sample.targets
    view = target.cameras[:, 0], sample.near_far, target.size
    with torch.no_grad():
        images = model.render_images(
            model.encode(sample.sources, sample.near_far), *view, chunk=16384
        )
    truth, masks = target.images[:, 0], target.masks[:, 0]
    ours = psnr(images.rgb, truth, masks)
    nearest = psnr(sample.sources.images[:, 0], truth, masks)
    assert (ours > nearest + 2).all(), (ours, nearest)
