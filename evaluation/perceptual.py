"""LPIPS, if the weights that it needs are on the machine. Nothing is ever downloaded here."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import lpips
import torch
from jaxtyping import Float
from torch import Tensor

from utils.checkpoints import load_safely
from utils.errors import UserError

logger = logging.getLogger(__name__)

VGG_FILE = "vgg16-397923af.pth"
"""Torchvision's ImageNet weights of VGG-16, as PyTorch names the file in its cache."""
_DOWNLOAD = "python -c \"import torchvision; torchvision.models.vgg16(weights='IMAGENET1K_V1')\""


class PerceptualDistance:
    """LPIPS with VGG features (Zhang et al., CVPR 2018), as in the tables of MVSNeRF."""

    def __init__(self, weights: str | Path, device: torch.device | str = "cpu") -> None:
        self._metric = load_metric(weights).to(device)
        self._device = device

    @torch.no_grad()
    def __call__(
        self, prediction: Float[Tensor, "3 height width"], truth: Float[Tensor, "3 height width"]
    ) -> float:
        """Compare two images in [0, 1]."""
        pair = [image.float()[None].to(self._device) for image in (prediction, truth)]
        return float(self._metric(*pair, normalize=True))


def load_metric(weights: str | Path) -> lpips.LPIPS:
    """Return the frozen network behind LPIPS."""
    features = load_safely(weights)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # lpips asks torchvision for a network without weights in a deprecated way.
        for message in ("The parameter 'pretrained'", "Arguments other than a weight"):
            warnings.filterwarnings("ignore", message=message)
        metric = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    wanted = {name: f"features.{name.split('.', 1)[1]}" for name in metric.net.state_dict()}
    try:
        metric.net.load_state_dict({name: features[key] for name, key in wanted.items()})
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{weights}: not the weights of torchvision's VGG-16. To get them: {_DOWNLOAD}"
        ) from error
    return metric.requires_grad_(False).eval()


def find_perceptual_weights(given: str | None = None) -> Path | None:
    """Return the file of VGG-16's weights: the given one, or that in PyTorch's cache, or None."""
    if given is not None:
        if not Path(given).is_file():
            raise UserError(f"{given}: no such file. To get VGG-16's weights: {_DOWNLOAD}")
        return Path(given)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / VGG_FILE
    if cached.is_file():
        return cached
    logger.info("LPIPS is left out: there is no %s. To get it once: %s", cached, _DOWNLOAD)
    return None
