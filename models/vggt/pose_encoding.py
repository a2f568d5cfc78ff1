"""VGGT's pose encoding, nine numbers per camera, and its conversion from and to ``Cameras``.

Entries 0-2 are the translation of the world-to-camera transform, 3-6 its rotation as a quaternion
with the scalar last (x, y, z, w; any norm), 7 and 8 the vertical and the horizontal field of view
in radians. The principal point is the image centre. The official code places pixel centres at
integer coordinates: its rays are half a pixel up and left of ours.
"""

from __future__ import annotations

from math import pi

import torch
import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from kornia.geometry.conversions import (
    quaternion_to_rotation_matrix,
    rotation_matrix_to_quaternion,
)
from torch import Tensor

from utils.cameras import Cameras, invert_rigid

MIN_FIELD_OF_VIEW = 1e-3
"""In radians; keeps focal lengths finite, since the network may predict exactly zero."""


def encode_pose(cameras: Cameras, height: int, width: int) -> Float[Tensor, "*batch 9"]:
    """Encode cameras of images of the given size; skew and principal point are lost."""
    w2c = cameras.w2c
    focal_x, focal_y = cameras.intrinsics[..., 0, 0], cameras.intrinsics[..., 1, 1]
    ratios = torch.stack([height / 2 / focal_y, width / 2 / focal_x], -1)
    # kornia's quaternions have the scalar first.
    quaternions = rotation_matrix_to_quaternion(w2c[..., :3, :3]).roll(-1, -1)
    quaternions = torch.where(quaternions[..., 3:] < 0, -quaternions, quaternions)
    return torch.cat([w2c[..., :3, 3], quaternions, 2 * torch.atan(ratios)], -1)


def decode_pose(pose_enc: Float[Tensor, "*batch 9"], height: int, width: int) -> Cameras:
    """Decode cameras of images of the given size. Differentiable.

    Fields of view are clamped to (0, pi), so that focal lengths are finite and positive. Does not
    synchronise with the device.
    """
    rotation = quaternion_to_rotation_matrix(pose_enc[..., 3:7].roll(1, -1))
    w2c = F.pad(torch.cat([rotation, pose_enc[..., :3, None]], -1), (0, 0, 0, 1))
    w2c[..., 3, 3] = 1
    fields_of_view = pose_enc[..., 7:].clamp(MIN_FIELD_OF_VIEW, pi - MIN_FIELD_OF_VIEW)
    tangent_y, tangent_x = torch.tan(fields_of_view / 2).unbind(-1)
    intrinsics = torch.diag_embed(
        torch.stack([width / 2 / tangent_x, height / 2 / tangent_y, torch.ones_like(tangent_x)], -1)
    )
    intrinsics[..., 0, 2], intrinsics[..., 1, 2] = width / 2, height / 2
    return Cameras(intrinsics, invert_rigid(w2c))
