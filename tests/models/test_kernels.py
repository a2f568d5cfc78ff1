"""The Triton kernels against PyTorch: on a GPU, and in Triton's interpreter."""

import subprocess
import sys

import kernel_cases
import pytest
import torch

from models.kernels.triton_support import kernels_run
from models.vggt_nerf import VGGTNeRF

NEAR_FAR, SIZE = (2.0, 6.0), (64, 80)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def test_interpreted_kernels_agree_with_pytorch():
    pytest.importorskip("triton")
    program = [sys.executable, kernel_cases.__file__]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="here they can")
def test_pytorch_is_used_where_kernels_cannot_run(caplog):
    pytest.importorskip("triton")
    compiled = torch.compile(
        lambda x: x + 1 if kernels_run(0) else x - 1, backend="eager", fullgraph=True
    )
    assert compiled(torch.zeros(1)) == -1
    assert "Triton kernels are off" in caplog.text


@pytest.mark.gpu
@needs_gpu
def test_kernels_agree_with_pytorch():
    kernel_cases.compare("cuda")
    kernel_cases.compare_convolutions("cuda")


@pytest.mark.gpu
@needs_gpu
@torch.no_grad()
def test_renders_what_pytorch_renders(make_views, make_cameras, monkeypatch):
    model = VGGTNeRF.from_pretrained("ckpts/vggt-mini-nerf", "cuda")
    model.graphs.enabled = False
    near_far = torch.tensor([NEAR_FAR, NEAR_FAR], device="cuda")
    views, camera = make_views(2, 3, size=SIZE).to("cuda"), make_cameras(2, size=SIZE).to("cuda")

    def render():
        with torch.autocast("cuda", torch.bfloat16):
            scene = model.encode(views, near_far)
            return model.render_images(scene, camera, near_far, SIZE).rgb

    rendered = render()
    for module in ("cost_volume", "projection", "encoder", "unet3d", "kernels.bundles"):
        monkeypatch.setattr(f"models.{module}.use_kernels", lambda *_: False)
    expected = render()
    assert (rendered - expected).norm() < 2e-2 * expected.norm()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize(("views", "size"), [(12, (481, 640)), (3, (426, 642)), (2, (512, 640))])
@torch.no_grad()
def test_bundles_of_whole_images_are_those_of_pytorch(
    views, size, make_views, make_cameras, monkeypatch
):
    model = VGGTNeRF.from_pretrained("ckpts/vggt-mini-nerf", "cuda")
    model.graphs.enabled = False
    near_far = torch.tensor([NEAR_FAR], device="cuda")
    sources, camera = make_views(1, views, size=size).to("cuda"), make_cameras(1, size=size)
    with torch.autocast("cuda", torch.bfloat16):
        scene = model.encode(sources, near_far, refine=False)
        rendered = model.render_images(scene, camera.to("cuda"), near_far, size).rgb
        monkeypatch.setattr("models.bundles.supported", lambda *_: False)
        expected = model.render_images(scene, camera.to("cuda"), near_far, size).rgb
    assert (rendered - expected).norm() < 2e-2 * expected.norm()
