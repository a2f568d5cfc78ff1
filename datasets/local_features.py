"""Features of single images and their matches, which no camera has had a say in.

Features are SIFT's (Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import torch
from jaxtyping import Float, Int64
from torch import Tensor

_RATIO = 0.8


@dataclass(frozen=True)
class LocalFeatures:
    """What one image shows at its most distinctive places."""

    pixels: Float[Tensor, "feature 2"]
    descriptors: Float[Tensor, "feature 128"]


def detect_features(image: Float[Tensor, "3 height width"], most: int) -> LocalFeatures:
    """Find an image's strongest features, at most so many; there may be none."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = cv2.SIFT.create(most).detectAndCompute(grey, None)
    if descriptors is None:
        return LocalFeatures(torch.empty(0, 2), torch.empty(0, 128))
    # OpenCV puts whole numbers at the pixels' centres.
    places = torch.tensor([keypoint.pt for keypoint in keypoints]) + 0.5
    return LocalFeatures(places, torch.from_numpy(descriptors))


def match_features(first: LocalFeatures, second: LocalFeatures) -> Float[Tensor, "2 match 2"]:
    """Return the pixels of pairs that are each other's nearest, clearly so in both directions."""
    if min(len(first.pixels), len(second.pixels)) < 2:
        return torch.empty(2, 0, 2)
    distances = torch.cdist(first.descriptors, second.descriptors)
    forward, backward = _clearly_nearest(distances), _clearly_nearest(distances.T)
    mutual = (forward >= 0) & (backward[forward.clamp_min(0)] == torch.arange(len(forward)))
    return torch.stack([first.pixels[mutual], second.pixels[forward[mutual]]])


def _clearly_nearest(distances: Float[Tensor, "query other"]) -> Int64[Tensor, " query"]:
    """Return for each query the nearest other, or -1 if the second nearest is about as near."""
    nearest = distances.topk(2, largest=False)
    clear = nearest.values[:, 0] < _RATIO * nearest.values[:, 1]
    return torch.where(clear, nearest.indices[:, 0], -1)
