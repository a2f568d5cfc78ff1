"""One picture of what models make of some views: sources, truth, prediction, error, depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Bool, Float
from torch import Tensor

from evaluation.pictures import BRIGHTEST_ERROR
from evaluation.rendering import ViewResult
from utils.contact_sheets import Panel, contact_sheet
from utils.depth_pictures import DepthRange, LengthUnit, color_bar, depth_picture, robust_range
from utils.images import colorize

_SOURCES = 3
"""Sources that are shown; a model may read more."""

Panels = list[Panel | None]
"""``None`` leaves a place empty."""


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one view."""

    result: ViewResult
    sources: Float[Tensor, "source 3 height width"]
    """The images of ``result.sources``."""


@dataclass(frozen=True)
class Contestant:
    """A model by its name, and what it makes of some views."""

    name: str
    predictions: tuple[Prediction, ...]
    """Of the same views in the same order for all that are compared."""


@dataclass(frozen=True)
class SheetStyle:
    """How pictures are shown."""

    height: int = 160
    """Of each picture; smaller ones stay as they are."""
    unit: LengthUnit = LengthUnit()
    """In which depths are shown."""


def comparison_sheet(
    contestants: Sequence[Contestant], style: SheetStyle
) -> Float[Tensor, "3 height width"]:
    """Compare models of one scene with the truth, and with each other.

    A single model makes a strip of each view: sources, truth, prediction, error and depth. Several
    make three rows of each view, with a column for each model; the sources are the first one's.
    All depths share one range, whatever model and view; errors go from black, 0, to bright, 0.5.
    """
    shown = robust_range(_depths(contestants))
    rows: list[Panels] = []
    for predictions in zip(*(one.predictions for one in contestants), strict=True):
        sources = _sources(predictions[0], style)
        image, depth = _truth(predictions[0], style, shown)
        bar = Panel(color_bar(image.picture.shape[-2], shown, style.unit))
        models = [
            _model_panels(one.name, prediction, style, shown)
            for one, prediction in zip(contestants, predictions, strict=True)
        ]
        if len(models) == 1:
            rows.append([*sources, image, *models[0], *([depth] if depth else []), bar])
            continue
        left = [[*sources, None, None][:_SOURCES], [image, None, depth]]
        rows += [list(row) for row in zip(*left, *models, [None, None, bar], strict=True)]
    return contact_sheet(rows)


def _depths(
    contestants: Sequence[Contestant],
) -> Iterator[tuple[Float[Tensor, "height width"], Bool[Tensor, "height width"]]]:
    for one in contestants:
        for prediction in one.predictions:
            images = prediction.result.rendered.images
            yield images.depth, images.solid
            yield images.true_depth, images.true_depth > 0


def _sources(prediction: Prediction, style: SheetStyle) -> list[Panel]:
    numbered = zip(prediction.result.sources, prediction.sources[:_SOURCES], strict=False)
    return [Panel(_shrunk(image, style.height), f"source {view}") for view, image in numbered]


def _truth(
    prediction: Prediction, style: SheetStyle, shown: DepthRange
) -> tuple[Panel, Panel | None]:
    """Return the photograph and, where any is known, the true depth."""
    images = prediction.result.rendered.images
    photograph = Panel(
        _shrunk(images.true_rgb, style.height), f"truth, view {prediction.result.target}"
    )
    known = images.true_depth > 0
    if not known.any():
        return photograph, None
    return photograph, Panel(_depth(images.true_depth, known, style, shown), "true depth")


def _model_panels(
    name: str, prediction: Prediction, style: SheetStyle, shown: DepthRange
) -> list[Panel]:
    """Return prediction, error and depth."""
    images, score = prediction.result.rendered.images, prediction.result.scores["psnr"]
    rgb = images.rgb.clamp(0, 1)
    error = _shrunk((rgb - images.true_rgb).abs().mean(0, keepdim=True), style.height)[0]
    return [
        Panel(_shrunk(rgb, style.height), name if score is None else f"{name}, {score:.1f} dB"),
        Panel(colorize(error, 0.0, BRIGHTEST_ERROR, "inferno"), "error"),
        Panel(_depth(images.depth, images.solid, style, shown), "depth"),
    ]


def _depth(
    depth: Float[Tensor, "height width"],
    valid: Bool[Tensor, "height width"],
    style: SheetStyle,
    shown: DepthRange,
) -> Float[Tensor, "3 rows columns"]:
    """Shrink first, to single pixels: the mean of two depths or colours would be a third one."""
    size = _shrunk_size(depth, style.height)
    both = torch.stack([depth, valid.to(depth)])[None]
    depth, valid_share = F.interpolate(both, size, mode="nearest-exact")[0]
    return depth_picture(depth, valid_share > 0, shown)


def _shrunk(
    image: Float[Tensor, "channel height width"], height: int
) -> Float[Tensor, "channel rows columns"]:
    size = _shrunk_size(image, height)
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def _shrunk_size(image: Tensor, height: int) -> tuple[int, int]:
    rows, columns = image.shape[-2:]
    scale = min(height / rows, 1.0)
    return round(rows * scale), round(columns * scale)
