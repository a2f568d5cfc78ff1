"""Scores of one rendered view: PSNR, SSIM, LPIPS, depth errors.

All but LPIPS are computed in float64 on the CPU.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lpips
import torch
from jaxtyping import Bool, Float, Shaped
from skimage.metrics import structural_similarity
from torch import Tensor

from datasets.protocols import Region
from datasets.views import Views
from models.novel_view import RenderedImages
from models.volume_rendering import SOLID
from utils.checkpoints import load_safely
from utils.errors import UserError

logger = logging.getLogger(__name__)

Scores = dict[str, float | None]
"""Scores by name; ``None`` if undefined, for example without true depth."""

Images = Float[Tensor, "image 3 height width"]
ImageDistance = Callable[[Images, Images], Float[Tensor, " image"]]
"""Function of predicted and true images in [0, 1]."""

DEPTH_THRESHOLDS = (0.01, 0.05, 0.1)
"""Thresholds of MVSNeRF (Chen et al., ICCV 2021) in scene units, which for DTU are 200 mm."""
SCORES = (
    "psnr",
    "seen_psnr",
    "seen_share",
    "ssim",
    "lpips",
    "depth_abs_err",
    "depth_rel_err",
    *(f"depth_within_{threshold:g}" for threshold in DEPTH_THRESHOLDS),
    "empty_opacity",
)
MAX_PSNR = 100.0
"""Reported for a perfect image instead of infinity."""
_SSIM_WINDOW = 7
VGG_FILE = "vgg16-397923af.pth"
"""File name of torchvision's ImageNet weights of VGG-16 in PyTorch's cache."""
_DOWNLOAD = "python -c \"import torchvision; torchvision.models.vgg16(weights='IMAGENET1K_V1')\""


@dataclass(frozen=True)
class ViewImages:
    """One view: prediction and truth."""

    rgb: Float[Tensor, "3 height width"]
    depth: Float[Tensor, "height width"]
    opacity: Float[Tensor, "height width"]
    true_rgb: Float[Tensor, "3 height width"]
    true_depth: Float[Tensor, "height width"]
    """0 where unknown."""
    mask: Bool[Tensor, "height width"]
    """Pixels that may be evaluated."""

    @staticmethod
    def pair(rendered: RenderedImages, truth: Views, view: int) -> ViewImages:
        """Pair one of several rendered views with its truth."""
        predicted = rendered.rgb[view], rendered.depth[view], rendered.opacity[view]
        rgb, depth, opacity = (part.float() for part in predicted)
        true = truth.images[view], truth.depths[view], truth.masks[view]
        return ViewImages(rgb, depth, opacity, *true)

    @property
    def solid(self) -> Bool[Tensor, "height width"]:
        """Pixels in which the prediction shows a surface."""
        return self.opacity > SOLID

    def cpu(self) -> ViewImages:
        """Move all tensors to the CPU."""
        return ViewImages(**{name: value.cpu() for name, value in vars(self).items()})

    def cropped(self, border: float) -> ViewImages:
        """Crop a share ``border`` of width and height at every side."""
        return ViewImages(**{name: cropped(value, border) for name, value in vars(self).items()})


def cropped(
    values: Shaped[Tensor, "*channel height width"], border: float
) -> Shaped[Tensor, "*channel rows columns"]:
    """Crop a share ``border`` of width and height at every side."""
    height, width = values.shape[-2:]
    # Tolerance for products just below an integer.
    rows, columns = int(height * border + 1e-6), int(width * border + 1e-6)
    return values[..., rows : height - rows, columns : width - columns]


def view_scores(
    images: ViewImages,
    region: Region,
    perceptual: ImageDistance | None = None,
    seen: Bool[Tensor, "height width"] | None = None,
) -> Scores:
    """Return all scores of one view.

    PSNR uses only the pixels of the region; SSIM and LPIPS use images that are black outside it.
    ``seen_psnr`` uses the pixels of the region that are in ``seen``; ``seen_share`` is their share.
    """
    view = images.cropped(region.border)
    counted = counted_pixels(view, region)
    seen = counted if seen is None else cropped(seen, region.border) & counted
    prediction, truth = view.rgb.double().clamp(0, 1), view.true_rgb.double()
    black = prediction.new_zeros(())
    pair = [torch.where(counted, image, black) for image in (prediction, truth)]
    values = {
        "psnr": psnr(prediction, truth, counted).clamp(max=MAX_PSNR).item(),
        "seen_psnr": psnr(prediction, truth, seen).clamp(max=MAX_PSNR).item(),
        "seen_share": (seen.sum() / counted.sum()).item(),
        "ssim": _ssim(*pair) if counted.any() else None,
        "lpips": None,
        **_depth_scores(view.depth.double(), torch.where(counted, view.true_depth.double(), 0)),
        "empty_opacity": None,
    }
    if perceptual and counted.any():
        values["lpips"] = perceptual(*(image[None] for image in pair)).item()
    if region.depth_is_complete:
        empty = view.opacity.double()[view.mask & (view.true_depth <= 0)]
        values["empty_opacity"] = empty.mean().item()
    # Means over no pixels are NaN.
    return {name: None if values[name] != values[name] else values[name] for name in SCORES}


def counted_pixels(view: ViewImages, region: Region) -> Bool[Tensor, "height width"]:
    """Return the evaluated pixels: those with true depth if the region requires it, or the mask."""
    known = view.true_depth > 0
    return known if region.known_depth_only and known.any() else view.mask


def describe_region(images: ViewImages, region: Region) -> str:
    """Describe the evaluated pixels in words."""
    view = images.cropped(region.border)
    if region.known_depth_only and (view.true_depth > 0).any():
        text = "pixels with true depth"
    else:
        text = "full frame" if view.mask.all() else "pixels inside the mask"
    return f"{text}, {region.border:.0%} border left out" if region.border else text


def _ssim(
    prediction: Float[Tensor, "3 height width"], truth: Float[Tensor, "3 height width"]
) -> float | None:
    if min(truth.shape[-2:]) < _SSIM_WINDOW:
        return None
    images = [image.permute(1, 2, 0).numpy() for image in (prediction, truth)]
    similarity: Any = structural_similarity(*images, channel_axis=-1, data_range=1.0)
    return float(similarity)


def _depth_scores(
    depth: Float[Tensor, "height width"], truth: Float[Tensor, "height width"]
) -> Scores:
    known = truth > 0
    errors = (depth - truth).abs()[known]
    return {
        "depth_abs_err": mean_depth_error(depth, truth).item(),
        "depth_rel_err": (errors / truth[known]).mean().item(),
        **{
            f"depth_within_{threshold:g}": (errors < threshold).double().mean().item()
            for threshold in DEPTH_THRESHOLDS
        },
    }


def psnr(
    prediction: Float[Tensor, "*batch 3 height width"],
    truth: Float[Tensor, "*batch 3 height width"],
    mask: Bool[Tensor, "*batch height width"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Return the peak signal-to-noise ratio in dB of values in [0, 1]; NaN for an empty mask."""
    error = (prediction - truth).square().mean(-3)
    if mask is None:
        mask = torch.ones_like(error, dtype=torch.bool)
    mse = torch.where(mask, error, 0).sum((-2, -1)) / mask.sum((-2, -1))
    return psnr_from_mse(mse)


def psnr_from_mse(mse: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Convert a mean squared error of values in [0, 1] to dB."""
    return -10 * torch.log10(mse)


def mean_depth_error(
    prediction: Float[Tensor, "*batch height width"],
    truth: Float[Tensor, "*batch height width"],
) -> Float[Tensor, "*batch"]:
    """Return the mean absolute depth error over pixels with a known depth (> 0); NaN if none."""
    known = truth > 0
    error = torch.where(known, (prediction - truth).abs(), 0).sum((-2, -1))
    return error / known.sum((-2, -1))


class PerceptualDistance:
    """LPIPS with VGG features (Zhang et al., CVPR 2018), as MVSNeRF reports it.

    It is not an ``nn.Module``, so that checkpoints of modules that use it do not contain VGG-16.
    """

    def __init__(self, weights: str | Path, device: torch.device | str | None = None) -> None:
        """Read the weights of VGG-16; ``device`` defaults to that of the images."""
        self.weights, self._device, self._metric = weights, device, _load_metric(weights)

    def __call__(self, prediction: Images, truth: Images) -> Float[Tensor, " image"]:
        """Return the distance of images in [0, 1], differentiably."""
        device = self._device or prediction.device
        pair = (images.to(device, torch.float32) for images in (prediction, truth))
        return self._metric.to(device)(*pair, normalize=True).flatten()


def _load_metric(weights: str | Path) -> lpips.LPIPS:
    features = load_safely(weights)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # lpips uses deprecated arguments of torchvision.
        for message in ("The parameter 'pretrained'", "Arguments other than a weight"):
            warnings.filterwarnings("ignore", message=message)
        metric = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    keys = {name: f"features.{name.split('.', 1)[1]}" for name in metric.net.state_dict()}
    try:
        metric.net.load_state_dict({name: features[key] for name, key in keys.items()})
    except (KeyError, RuntimeError) as error:
        raise UserError(
            f"{weights}: not the weights of torchvision's VGG-16. To get them: {_DOWNLOAD}"
        ) from error
    return metric.requires_grad_(False).eval()


def find_perceptual_distance(
    weights: str | None = None, device: torch.device | str | None = None
) -> PerceptualDistance | None:
    """Return LPIPS with the given weights or those in PyTorch's cache; None, logged, without any.

    ``device`` defaults to that of the images.
    """
    if weights is not None and not Path(weights).is_file():
        raise UserError(f"{weights}: no such file. To get VGG-16's weights: {_DOWNLOAD}")
    file = Path(weights or f"{torch.hub.get_dir()}/checkpoints/{VGG_FILE}")
    if file.is_file():
        return PerceptualDistance(file, device)
    logger.info("LPIPS is left out: there is no %s. To get it once: %s", file, _DOWNLOAD)
    return None
