"""Matched features of two views, which no camera has had a say in.

Features are SIFT's (Lowe, 2004). What the ratio test leaves is filtered by the fundamental matrix
that most of it agrees on (Hartley and Zisserman, Multiple View Geometry, chapter 11): so the
matches are those of some pair of pinhole cameras, and whether it is the given pair can be asked.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

_MAX_FEATURES = 2500
_RATIO = 0.8
_MAX_DISTANCE = 1.5
"""Pixels from the epipolar line of the matrix that is fitted to the matches themselves."""
_CONFIDENCE = 0.999
_MIN_MATCHES = 12


def match_pair(
    images: Float[Tensor, "2 3 height width"], seed: int = 0
) -> Float[Tensor, "2 match 2"]:
    """Return the pixels of consistent matches in both images; none if there are too few."""
    pixels, descriptors = zip(*(_detect(image) for image in images), strict=True)
    pairs = _mutual(descriptors[0], descriptors[1])
    if len(pairs) < _MIN_MATCHES:
        return torch.empty(2, 0, 2)
    first, second = pixels[0][pairs[:, 0]], pixels[1][pairs[:, 1]]
    cv2.setRNGSeed(seed)
    _, kept = cv2.findFundamentalMat(first, second, cv2.FM_RANSAC, _MAX_DISTANCE, _CONFIDENCE, 2000)
    if kept is None or kept.sum() < _MIN_MATCHES:
        return torch.empty(2, 0, 2)
    inliers = kept.ravel() > 0
    return torch.from_numpy(np.stack([first[inliers], second[inliers]])).float()


def _detect(
    image: Float[Tensor, "3 height width"],
) -> tuple[Float[np.ndarray, "feature 2"], Float[np.ndarray, "feature 128"]]:
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    keypoints, descriptors = cv2.SIFT.create(_MAX_FEATURES).detectAndCompute(grey, None)
    if descriptors is None:
        return np.empty((0, 2), np.float32), np.empty((0, 128), np.float32)
    # OpenCV puts whole numbers at the pixels' centres.
    return np.array([keypoint.pt for keypoint in keypoints], np.float32) + 0.5, descriptors


def _mutual(
    first: Float[np.ndarray, "first 128"], second: Float[np.ndarray, "second 128"]
) -> Int64[np.ndarray, "pair 2"]:
    """Return pairs that are each other's nearest and pass the ratio test in both directions."""
    if min(len(first), len(second)) < 2:
        return np.empty((0, 2), np.int64)
    distances = torch.cdist(torch.from_numpy(first), torch.from_numpy(second))
    forward, backward = _ratio_test(distances), _ratio_test(distances.T)
    queries = torch.arange(len(first))
    kept = (forward >= 0) & (backward[forward.clamp_min(0)] == queries)
    return torch.stack([queries[kept], forward[kept]], 1).numpy()


def _ratio_test(distances: Float[Tensor, "query other"]) -> Int64[Tensor, " query"]:
    """Return for each query the nearest other, or -1 if the second nearest is about as near."""
    nearest = distances.topk(2, largest=False)
    clear = nearest.values[:, 0] < _RATIO * nearest.values[:, 1]
    return torch.where(clear, nearest.indices[:, 0], -1)
