"""What only shows on a GPU: autocast, memory."""

import pytest
import torch

from datasets.views import Views
from models.vggt_nerf import VGGTNeRF

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]


@pytest.fixture
def on_gpu(tiny_model):
    model = VGGTNeRF(tiny_model.config, tiny_model.backbone)
    model.load_state_dict(tiny_model.state_dict())
    yield model.cuda().eval()
    tiny_model.cpu()


def test_backbone_follows_the_model_and_stays_frozen(on_gpu, make_views):
    views: Views = make_views(1, 3).to("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        features = on_gpu.backbone(views.images, heads=("depth", "camera"))
    assert features.depth.dtype == torch.float32 and not features.depth.requires_grad
    assert all(tokens.device.type == "cuda" for tokens in features.tokens)


def test_bf16_rendering_is_close_to_full_precision(on_gpu, make_views, make_cameras):
    near_far = torch.tensor([[2.0, 6.0]], device="cuda")
    camera = make_cameras(1).to("cuda")
    with torch.no_grad():
        scene = on_gpu.encode(make_views(1, 3).to("cuda"), near_far)
        full = on_gpu.render_images(scene, camera, near_far, (32, 40))
        with torch.autocast("cuda", torch.bfloat16):
            mixed = on_gpu.render_images(scene, camera, near_far, (32, 40))
    assert (full.rgb - mixed.rgb).abs().mean() < 5e-3


def test_memory_grows_with_the_chunk_and_no_faster_than_the_image(on_gpu, make_views, make_cameras):
    near_far = torch.tensor([[2.0, 6.0]], device="cuda")
    with torch.no_grad():
        scene = on_gpu.encode(make_views(1, 3).to("cuda"), near_far)

    @torch.no_grad()
    def memory(side, chunk):
        """Return the peaks of a whole image, and of it from its first chunk on."""
        camera, size, starts = make_cameras(1, size=(side, side)).to("cuda"), (side, side), []

        def before_chunk():
            if len(starts) == 1:
                peaks.append(torch.cuda.max_memory_allocated())
                torch.cuda.reset_peak_memory_stats()
            starts.append(torch.cuda.memory_allocated())

        peaks = []
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        starts.append(torch.cuda.memory_allocated())
        on_gpu.render_images(scene, camera, near_far, size, chunk, before_chunk)
        peaks.append(torch.cuda.max_memory_allocated())
        return max(peaks) - starts[0], peaks[1] - starts[1]

    (small, of_few), (large, _) = memory(256, 4096), memory(512, 4096)
    assert large < 4.4 * small
    assert memory(256, 16384)[1] > 1.5 * of_few


@pytest.mark.filterwarnings("ignore:Synchronization debug mode:UserWarning")
def test_nothing_waits_for_the_device(on_gpu, make_views, make_cameras):
    near_far = torch.tensor([[2.0, 6.0]], device="cuda")
    views, camera = make_views(1, 3).to("cuda"), make_cameras(1).to("cuda")
    # Capturing CUDA graphs waits, once.
    on_gpu.graphs.enabled = False
    with torch.no_grad():
        on_gpu.render_images(on_gpu.encode(views, near_far), camera, near_far, (32, 40))
        torch.cuda.set_sync_debug_mode("error")
        try:
            scene = on_gpu.encode(views, near_far)
            on_gpu.render_images(scene, camera, near_far, (32, 40))
        finally:
            torch.cuda.set_sync_debug_mode("default")


@torch.no_grad()
def test_cuda_graphs_change_nothing(on_gpu, make_views, make_cameras):
    near_far = torch.tensor([[2.0, 6.0]], device="cuda")
    rendered = []
    for enabled in (False, True, True, True):
        on_gpu.graphs.enabled = enabled
        for seed in (0, 1):
            views, camera = make_views(1, 3, seed=seed).to("cuda"), make_cameras(1).to("cuda")
            scene = on_gpu.encode(views, near_far)
            rendered.append(on_gpu.render_images(scene, camera, near_far, (32, 40)))
    assert on_gpu.graphs.enabled
    for step, images in enumerate(rendered):
        torch.testing.assert_close(images.rgb, rendered[step % 2].rgb, atol=1e-4, rtol=0)
