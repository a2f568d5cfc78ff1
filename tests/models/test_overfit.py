"""The whole model learns one small scene: every part pulls its weight."""

import torch

from datasets.config import DataChoice
from datasets.protocols import scene_tasks
from datasets.views import collate_samples
from evaluation.scores import psnr
from models.vggt_nerf import VGGTNeRF
from training.config import LossConfig
from training.losses import window_losses
from training.ray_batches import render_random_window


def learn(model, sample, steps, loss):
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    generator = torch.Generator().manual_seed(0)
    near_far, targets = sample.near_far, sample.targets[:, 0]
    for _ in range(steps):
        scene = model.encode(sample.sources, near_far)
        drawn = render_random_window(model, scene, targets, near_far, 2048, generator)
        losses = window_losses(scene, *drawn, near_far, loss)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()


def test_learns_a_scene_and_its_depth(tiny_model, tiny_dtu):
    (task,) = scene_tasks(DataChoice(datadir=str(tiny_dtu)))
    sample = collate_samples([task.scene.sample(task.targets[0], task.pool, 3)])
    torch.manual_seed(0)
    model = VGGTNeRF(tiny_model.config, tiny_model.backbone)
    learn(model, sample, 90, LossConfig())
    scene = model.encode(sample.sources, sample.near_far)
    target = sample.targets
    images = model.render_images(scene, target.cameras[:, 0], sample.near_far, target.size)
    quality = float(psnr(images.rgb, target.images[:, 0]))
    known = target.depths[:, 0] > 0
    extent = (sample.near_far[:, 1] - sample.near_far[:, 0]).item()
    error = float((images.depth - target.depths[:, 0]).abs()[known].mean()) / extent
    assert quality > 23, (quality, error)
    assert error < 0.05, (quality, error)
