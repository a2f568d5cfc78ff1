"""Evaluation on procedural scenes that training never sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from datasets.replay import FIRST_TRAINING_SCENE, SceneRequest
from datasets.views import Views
from models.vggt.network import VGGT
from models.vggt_training.evaluation import baseline_prediction, geometry_metrics

Prediction = tuple[Float[Tensor, "scene view height width"], Float[Tensor, "scene view 9"]]


@dataclass(frozen=True)
class HeldOutConfig:
    """Which scenes, seen how."""

    val_scenes: int = 64
    """held-out scenes"""
    val_views: int = 4
    """views of each"""
    val_height: int = 224
    """height of the images in pixels"""
    val_width: int = 280
    """width of the images in pixels"""
    val_difficulty: float = 0.5
    """difficulty of the scenes"""
    val_batch: int = 16
    """scenes at once"""

    def __post_init__(self) -> None:
        """Refuse scenes that training might see, and scenes without pairs of views."""
        if not 1 <= self.val_scenes <= FIRST_TRAINING_SCENE or self.val_batch < 1:
            raise ValueError(f"val_scenes={self.val_scenes} or val_batch={self.val_batch} is off")
        if self.val_views < 2:
            raise ValueError("cameras are judged by pairs: val_views must be at least 2")

    def requests(self, rank: int = 0, world_size: int = 1) -> list[SceneRequest]:
        """Return what one device has to look at, in batches."""
        mine = range(self.val_scenes)[rank::world_size]
        batches = [mine[i : i + self.val_batch] for i in range(0, len(mine), self.val_batch)]
        size = (self.val_height, self.val_width)
        return [SceneRequest(ids, self.val_views, size, self.val_difficulty) for ids in batches]


def evaluate_held_out(
    predict: Callable[[Views], Prediction],
    sample: Callable[[SceneRequest], Views],
    config: HeldOutConfig,
) -> dict[str, float]:
    """Return the mean of every metric over the held-out scenes.

    Args:
        predict: Depth and pose encodings for some views.
        sample: Returns the views of some scenes.
        config: Which scenes.
    """
    rows = []
    for request in config.requests():
        views = sample(request)
        metrics = geometry_metrics(*predict(views), views)
        rows.append({name: mean * len(request.scene_ids) for name, mean in metrics.means().items()})
    return {name: float(sum(row[name] for row in rows)) / config.val_scenes for name in rows[0]}


def network_predictor(network: VGGT) -> Callable[[Views], Prediction]:
    """Return what a network predicts, in full precision."""

    @torch.no_grad()
    def predict(views: Views) -> Prediction:
        prediction = network(views.images, heads=("camera", "depth"))
        return prediction.depth.squeeze(-1), prediction.pose_enc

    return predict


def comparison_table(
    network: VGGT, sample: Callable[[SceneRequest], Views], config: HeldOutConfig
) -> Iterator[str]:
    """Yield the lines of a table of the network's metrics beside those of knowing nothing."""
    ours = evaluate_held_out(network_predictor(network), sample, config)
    trivial = evaluate_held_out(baseline_prediction, sample, config)
    yield f"{'metric':12} {'network':>10} {'trivial':>10}"
    for name, value in ours.items():
        yield f"{name:12} {value:10.4f} {trivial[name]:10.4f}"
