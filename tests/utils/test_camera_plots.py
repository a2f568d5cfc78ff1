import numpy as np
import torch

from utils.camera_plots import plot_cameras
from utils.cameras import Cameras


def test_a_path_is_drawn_in_its_colours(tmp_path):
    c2w = torch.eye(4).repeat(6, 1, 1)
    c2w[:, 0, 3] = torch.arange(6.0)
    cameras = Cameras(torch.tensor([[50.0, 0, 40], [0, 50, 30], [0, 0, 1]]).expand(6, 3, 3), c2w)
    figure = plot_cameras(
        cameras, (60, 80), cameras[:4], focus=torch.tensor([1.0, 0, 5]), title="cameras"
    )
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
    for colour in ((214, 39, 40), (255, 127, 14), (31, 119, 180)):
        assert (np.abs(pixels - colour).sum(-1) < 30).any(), colour
    assert plot_cameras(cameras[:1], (60, 80)).axes
