"""What only fine-tuning minimises."""

import pytest
import torch

from models.checkpoint import load_finetuned
from training.finetuning_step import SceneLossConfig, StepSettings, step_losses
from training.losses import LossConfig
from training.ray_batches import RayBatchConfig

LATEST = "runs/scan2/vggt_finetune_scan2/ckpts/latest.tar"


@pytest.fixture
def scene(finetune, tmp_path):
    assert finetune(num_steps=1) == 0
    return load_finetuned(tmp_path / LATEST).scene


def gradient_of_plane_weights(scene, guide_weight):
    loss = LossConfig(coarse_weight=0.0, ssim_weight=0.0)
    rays = RayBatchConfig(patch_size=8, patch_share=0.0)
    settings = StepSettings(rays, loss, SceneLossConfig(guide_weight=guide_weight), 64, 1, 2)
    scene.requires_grad_(True).zero_grad()
    masks = torch.ones(len(scene.images), *scene.size, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    step_losses(
        scene, masks, scene.sources_of_training_views(2), settings, generator
    ).total.backward()
    # The first output is what planes weigh; the others are context for the field.
    return scene.model.volume.network.outward.weight.grad[0].abs().max()


def test_the_volume_learns_where_light_came_from(scene):
    """Samples are drawn without gradients: nothing else tells it."""
    assert gradient_of_plane_weights(scene, 0.01) > 0
    assert gradient_of_plane_weights(scene, 0.0) == 0
