"""The Triton kernels against PyTorch: on a GPU, and a few points in Triton's interpreter."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.projection import SceneFeatures
from models.vggt_nerf import VGGTNeRF

NEAR_FAR, SIZE = (2.0, 6.0), (64, 80)
SCRIPT = Path(__file__).parents[1] / "fixtures" / "interpreted_kernels.py"


def test_interpreted_kernels_agree_with_pytorch():
    pytest.importorskip("triton")
    ran = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr


@pytest.fixture
def shipped():
    model = VGGTNeRF.from_pretrained("ckpts/vggt-mini-nerf", "cuda")
    model.graphs.enabled = False
    return model


def relative_error(value, expected):
    return ((value - expected).norm() / expected.norm()).item()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-4), (True, 2e-2)])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_renders_what_pytorch_renders(
    shipped, make_views, make_cameras, monkeypatch, bf16, tolerance, masked
):
    near_far = torch.tensor([NEAR_FAR, NEAR_FAR], device="cuda")
    views, camera = make_views(2, 3, size=SIZE).to("cuda"), make_cameras(2, size=SIZE).to("cuda")

    def render():
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            scene = shipped.encode(views, near_far)
            assert isinstance(scene, SceneFeatures)
            if masked:
                mask = torch.tensor([[True, False, True], [True, True, True]], device="cuda")
                scene = replace(scene, view_mask=mask)
            volume = shipped.build_cost_volume(scene, camera, near_far, SIZE)
            return volume, shipped.render_images(scene, camera, near_far, SIZE)

    volume, image = render()
    for module in ("cost_volume", "projection", "encoder"):
        monkeypatch.setattr(f"models.{module}.use_kernels", lambda *_: False)
    expected_volume, expected = render()
    assert relative_error(volume.weights, expected_volume.weights) < 2 * tolerance
    assert relative_error(image.rgb, expected.rgb) < tolerance
