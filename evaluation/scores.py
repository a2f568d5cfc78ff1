"""Figures of one rendered view, as the field's tables define them.

All but LPIPS is computed in double precision on the CPU, whatever rendered the view.
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
"""By name; ``None`` where there is nothing to measure."""

Images = Float[Tensor, "image 3 height width"]
ImageDistance = Callable[[Images, Images], Float[Tensor, " image"]]
"""Compares images in [0, 1] with the truth."""

DEPTH_THRESHOLDS = (0.01, 0.05, 0.1)
"""In scene units, which for DTU are 200 mm: those of MVSNeRF (Chen et al., ICCV 2021)."""
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
"""Reported for a perfect image, whose ratio is infinite."""
_SSIM_WINDOW = 7
VGG_FILE = "vgg16-397923af.pth"
"""Torchvision's ImageNet weights of VGG-16, as PyTorch names the file in its cache."""
_DOWNLOAD = "python -c \"import torchvision; torchvision.models.vgg16(weights='IMAGENET1K_V1')\""


@dataclass(frozen=True)
class ViewImages:
    """One view, predicted and true."""

    rgb: Float[Tensor, "3 height width"]
    depth: Float[Tensor, "height width"]
    opacity: Float[Tensor, "height width"]
    true_rgb: Float[Tensor, "3 height width"]
    true_depth: Float[Tensor, "height width"]
    """0 where it is unknown."""
    mask: Bool[Tensor, "height width"]
    """Pixels that may count."""

    @staticmethod
    def pair(rendered: RenderedImages, truth: Views, view: int) -> ViewImages:
        """Put a rendering beside its truth; both have one batch axis (view)."""
        predicted = rendered.rgb[view], rendered.depth[view], rendered.opacity[view]
        rgb, depth, opacity = (part.float() for part in predicted)
        true = truth.images[view], truth.depths[view], truth.masks[view]
        return ViewImages(rgb, depth, opacity, *true)

    @property
    def solid(self) -> Bool[Tensor, "height width"]:
        """Pixels in which the prediction shows a surface."""
        return self.opacity > SOLID

    def cpu(self) -> ViewImages:
        """Return the same on the CPU."""
        return ViewImages(**{name: value.cpu() for name, value in vars(self).items()})

    def cropped(self, border: float) -> ViewImages:
        """Cut off a share of width and height at every side."""
        return ViewImages(**{name: cropped(value, border) for name, value in vars(self).items()})


def cropped(
    values: Shaped[Tensor, "*channel height width"], border: float
) -> Shaped[Tensor, "*channel rows columns"]:
    """Cut off a share of width and height at every side."""
    height, width = values.shape[-2:]
    # The product may lie a rounding error below a whole number.
    rows, columns = int(height * border + 1e-6), int(width * border + 1e-6)
    return values[..., rows : height - rows, columns : width - columns]


def view_scores(
    images: ViewImages,
    region: Region,
    perceptual: ImageDistance | None = None,
    seen: Bool[Tensor, "height width"] | None = None,
) -> Scores:
    """Measure one view.

    PSNR counts the pixels of the region alone. SSIM and LPIPS, which compare neighbourhoods, see
    whole images in which all other pixels are black. ``seen_psnr`` counts those pixels of the
    region that are in ``seen``, ``seen_share`` is how many these are.
    """
    view = images.cropped(region.border)
    counted = counted_pixels(view, region)
    seen = counted if seen is None else cropped(seen, region.border) & counted
    prediction, truth = view.rgb.double().clamp(0, 1), view.true_rgb.double()
    black = prediction.new_zeros(())
    shown, expected = (torch.where(counted, image, black) for image in (prediction, truth))
    values = {
        "psnr": psnr(prediction, truth, counted).clamp(max=MAX_PSNR).item(),
        "seen_psnr": psnr(prediction, truth, seen).clamp(max=MAX_PSNR).item(),
        "seen_share": (seen.sum() / counted.sum()).item(),
        "ssim": _ssim(shown, expected) if counted.any() else None,
        "lpips": None,
        **_depth_scores(view.depth.double(), torch.where(counted, view.true_depth.double(), 0)),
        "empty_opacity": None,
    }
    if perceptual and counted.any():
        values["lpips"] = perceptual(shown[None], expected[None]).item()
    if region.depth_is_complete:
        empty = view.opacity.double()[view.mask & (view.true_depth <= 0)]
        values["empty_opacity"] = empty.mean().item()
    # The mean of nothing is NaN.
    return {name: None if values[name] != values[name] else values[name] for name in SCORES}


def counted_pixels(view: ViewImages, region: Region) -> Bool[Tensor, "height width"]:
    """Return the pixels that count: with true depth if only these do and there is any."""
    known = view.true_depth > 0
    return known if region.known_depth_only and known.any() else view.mask


def describe_region(images: ViewImages, region: Region) -> str:
    """Say in words which pixels count."""
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
    """Peak signal-to-noise ratio in dB, over the masked pixels, for values in [0, 1].

    An empty mask gives NaN: there is nothing to measure.
    """
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
    """Mean absolute z-depth error where the truth is known (> 0); NaN where it never is."""
    known = truth > 0
    error = torch.where(known, (prediction - truth).abs(), 0).sum((-2, -1))
    return error / known.sum((-2, -1))


class PerceptualDistance:
    """LPIPS with VGG features (Zhang et al., CVPR 2018), as in the tables of MVSNeRF.

    Not a module, so that checkpoints of what it trains do not hold VGG-16.
    """

    def __init__(self, weights: str | Path, device: torch.device | str | None = None) -> None:
        """Read VGG-16's weights; compute on ``device``, or where the images are."""
        self.weights, self._device, self._metric = weights, device, _load_metric(weights)

    def __call__(self, ours: Images, theirs: Images) -> Float[Tensor, " image"]:
        """Compare images in [0, 1], differentiably."""
        device = self._device or ours.device
        pair = (images.to(device, torch.float32) for images in (ours, theirs))
        return self._metric.to(device)(*pair, normalize=True).flatten()


def _load_metric(weights: str | Path) -> lpips.LPIPS:
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


def find_perceptual_distance(
    given: str | None = None, device: torch.device | str | None = None
) -> PerceptualDistance | None:
    """Return LPIPS with the given file of weights or that in PyTorch's cache, else a note and None.

    It computes on ``device``, or where the images are.
    """
    if given is not None and not Path(given).is_file():
        raise UserError(f"{given}: no such file. To get VGG-16's weights: {_DOWNLOAD}")
    file = Path(given or f"{torch.hub.get_dir()}/checkpoints/{VGG_FILE}")
    if file.is_file():
        return PerceptualDistance(file, device)
    logger.info("LPIPS is left out: there is no %s. To get it once: %s", file, _DOWNLOAD)
    return None
