import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Traced only: generating code takes a minute, and is torch's own affair.
SCRIPT = """
import functools, torch
torch.manual_seed(0)
torch.set_num_threads(1)
torch.compile = functools.partial(torch.compile, backend="eager", fullgraph=True)
from model_inputs import random_views, ring_cameras
from models.vggt.backbone import NullBackbone
from models.vggt.network import random_vggt
from models.config import CostVolumeConfig, DecoderConfig, ModelConfig
from models.vggt_nerf import VGGTNeRF
from tiny_models import SMALLEST_VGGT

near_far, size = torch.tensor([[2.0, 6.0]]), (24, 32)
config = ModelConfig(volume=CostVolumeConfig(fine_planes=4), decoder=DecoderConfig((8, 16)))
model, camera = VGGTNeRF(config, NullBackbone()).eval(), ring_cameras(1, size=size)
with torch.no_grad():
    scene = model.encode(random_views(1, 3, size), near_far)
    plain = model.render_images(scene, camera, near_far, size, chunk=300)
    model.compile_rendering()
    for chunk in (300, None):
        graph = model.render_images(scene, camera, near_far, size, chunk=chunk)
        torch.testing.assert_close((graph.rgb, graph.depth), (plain.rgb, plain.depth))
    refined = model.encode(random_views(1, 3, size), near_far).prior.depth
assert plain.rgb.std() > 0.01 and refined.shape == scene.prior.depth.shape

vggt = random_vggt(SMALLEST_VGGT, seed=0, layer_scale=1.0)
images = torch.rand(1, 3, 3, 28, 42)
compiled = torch.compile(vggt)
actual, expected = compiled(images), vggt(images)
torch.testing.assert_close(actual.world_points, expected.world_points)
torch.testing.assert_close(actual.pose_enc, expected.pose_enc)
"""


def test_compiled_graphs_of_rendering_and_backbone_compute_the_same():
    """In a process of its own: the tests' own checks of shapes are nothing that can be traced."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SCRIPT],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/fixtures'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
