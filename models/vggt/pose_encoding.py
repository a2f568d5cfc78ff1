"""The network's nine numbers per camera, and their conversion from and to ``Cameras``.

Entries 0-2 are the translation of the world-to-camera transform, 3-6 its rotation as a quaternion
with the scalar last (x, y, z, w; any norm), 7 and 8 the vertical and the horizontal field of view
in radians. The principal point is the middle of the image. The published code has the same, but
unprojects integer coordinates for pixel centres: its rays lie half a pixel up and left of ours.
"""

from __future__ import annotations

from math import pi

import torch
from jaxtyping import Float
from kornia.geometry.conversions import (
    quaternion_to_rotation_matrix,
    rotation_matrix_to_quaternion,
)
from torch import Tensor

from utils.cameras import Cameras, invert_rigid

# The network may predict a field of view of exactly zero. 0.06 degrees keeps focal lengths finite.
MIN_FIELD_OF_VIEW = 1e-3


def encode_pose(cameras: Cameras, height: int, width: int) -> Float[Tensor, "*batch 9"]:
    """Encode cameras of images of the given size. Skew and principal point are dropped."""
    w2c = cameras.w2c
    half_size = w2c.new_tensor([height / 2, width / 2])
    focal = cameras.intrinsics[..., [1, 0], [1, 0]]
    fields_of_view = 2 * torch.atan(half_size / focal)
    # kornia has the scalar first.
    quaternions = rotation_matrix_to_quaternion(w2c[..., :3, :3]).roll(-1, -1)
    quaternions = torch.where(quaternions[..., 3:] < 0, -quaternions, quaternions)
    return torch.cat([w2c[..., :3, 3], quaternions, fields_of_view], -1)


def decode_pose(pose_enc: Float[Tensor, "*batch 9"], height: int, width: int) -> Cameras:
    """Return the cameras in pixels of an image of the given size. Differentiable.

    Fields of view are kept within (0, pi), so that focal lengths are finite and positive.
    """
    rotation = quaternion_to_rotation_matrix(pose_enc[..., 3:7].roll(1, -1))
    top = torch.cat([rotation, pose_enc[..., :3, None]], -1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    fields_of_view = pose_enc[..., 7:].clamp(MIN_FIELD_OF_VIEW, pi - MIN_FIELD_OF_VIEW)
    center = pose_enc.new_tensor([width / 2, height / 2])
    focal = center / torch.tan(fields_of_view.flip(-1) / 2)
    intrinsics = torch.diag_embed(torch.cat([focal, torch.ones_like(focal[..., :1])], -1))
    intrinsics[..., :2, 2] = center
    return Cameras(intrinsics, invert_rigid(torch.cat([top, bottom], -2)))
