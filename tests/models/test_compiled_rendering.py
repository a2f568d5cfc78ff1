import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Traced only: generating code takes a minute, and is torch's own affair.
COMPARE = """
import functools, torch
torch.compile = functools.partial(torch.compile, backend="eager", fullgraph=True)
from datasets.views import Views
from models.vggt.backbone import NullBackbone
from models.config import ModelConfig
from models.vggt_nerf import VGGTNeRF
from utils.cameras import Cameras

torch.manual_seed(0)
torch.set_num_threads(1)
near_far, size = torch.tensor([[2.0, 6.0]]), (24, 32)
model = VGGTNeRF(ModelConfig(), NullBackbone()).eval()
c2w = torch.eye(4).repeat(1, 4, 1, 1)
c2w[:, :, 0, 3] = 0.2 * torch.arange(4)
matrix = torch.tensor([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]]).expand(1, 4, 3, 3)
cameras = Cameras(matrix, c2w)
depths = torch.zeros(1, 3, *size)
views = Views(torch.rand(1, 3, 3, *size), cameras[:, :3], depths, depths == 0)
with torch.no_grad():
    scene = model.encode(views, near_far)
    plain = model.render_images(scene, cameras[:, 3], near_far, size, chunk=300)
    model.compile_rendering()
    graph = model.render_images(scene, cameras[:, 3], near_far, size, chunk=300)
assert plain.rgb.std() > 0.01
torch.testing.assert_close(graph.rgb, plain.rgb)
torch.testing.assert_close(graph.depth, plain.depth)
print("alike")
"""


def test_compiled_graphs_render_the_same():
    """In a process of its own: the tests' own checks of shapes are nothing that can be traced."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COMPARE], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "alike\n", done.stderr
