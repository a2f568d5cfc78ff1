"""Matched features of two views, filtered without asking their cameras.

What the ratio test leaves is filtered by the fundamental matrix that most of it agrees on (Hartley
and Zisserman, Multiple View Geometry, chapter 11): so the matches are those of some pair of pinhole
cameras, and whether it is the given pair can be asked.
"""

from __future__ import annotations

import cv2
import torch
from jaxtyping import Float
from torch import Tensor

from datasets.matching import detect_features, match_features

_MAX_FEATURES = 2500
_MAX_DISTANCE = 1.5
"""Pixels from the epipolar line of the matrix that is fitted to the matches themselves."""
_CONFIDENCE = 0.999
_MIN_MATCHES = 12


def match_pair(
    images: Float[Tensor, "2 3 height width"], seed: int = 0
) -> Float[Tensor, "2 match 2"]:
    """Return the pixels of consistent matches in both images; none if there are too few."""
    matches = match_features(*(detect_features(image, _MAX_FEATURES) for image in images))
    if matches.shape[1] < _MIN_MATCHES:
        return torch.empty(2, 0, 2)
    cv2.setRNGSeed(seed)
    first, second = matches.numpy()
    _, kept = cv2.findFundamentalMat(first, second, cv2.FM_RANSAC, _MAX_DISTANCE, _CONFIDENCE, 2000)
    if kept is None or kept.sum() < _MIN_MATCHES:
        return torch.empty(2, 0, 2)
    return matches[:, torch.from_numpy(kept.ravel() > 0)]
