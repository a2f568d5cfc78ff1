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
from torch import Tensor
from torch.nn import functional

from utils.cameras import Cameras, invert_rigid

# The network may predict a field of view of exactly zero. 0.06 degrees keeps focal lengths finite.
MIN_FIELD_OF_VIEW = 1e-3


def encode_pose(cameras: Cameras, height: int, width: int) -> Float[Tensor, "*batch 9"]:
    """Encode cameras of images of the given size. Skew and principal point are dropped."""
    w2c = cameras.w2c
    half_size = w2c.new_tensor([height / 2, width / 2])
    focal = cameras.intrinsics[..., [1, 0], [1, 0]]
    fields_of_view = 2 * torch.atan(half_size / focal)
    quaternions = quaternion_from_rotation(w2c[..., :3, :3])
    return torch.cat([w2c[..., :3, 3], quaternions, fields_of_view], -1)


def decode_pose(pose_enc: Float[Tensor, "*batch 9"], height: int, width: int) -> Cameras:
    """Return the cameras in pixels of an image of the given size. Differentiable.

    Fields of view are kept within (0, pi), so that focal lengths are finite and positive.
    """
    rotation = rotation_from_quaternion(pose_enc[..., 3:7])
    top = torch.cat([rotation, pose_enc[..., :3, None]], -1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    fields_of_view = pose_enc[..., 7:].clamp(MIN_FIELD_OF_VIEW, pi - MIN_FIELD_OF_VIEW)
    center = pose_enc.new_tensor([width / 2, height / 2])
    focal = center / torch.tan(fields_of_view.flip(-1) / 2)
    intrinsics = torch.diag_embed(torch.cat([focal, torch.ones_like(focal[..., :1])], -1))
    intrinsics[..., :2, 2] = center
    return Cameras(intrinsics, invert_rigid(torch.cat([top, bottom], -2)))


def rotation_from_quaternion(
    quaternions: Float[Tensor, "*batch 4"],
) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotations of quaternions (x, y, z, w) of any norm but zero."""
    x, y, z, w = quaternions.unbind(-1)
    s = 2 / (quaternions**2).sum(-1).clamp_min(1e-12)
    entries = [
        *(1 - s * (y * y + z * z), s * (x * y - z * w), s * (x * z + y * w)),
        *(s * (x * y + z * w), 1 - s * (x * x + z * z), s * (y * z - x * w)),
        *(s * (x * z - y * w), s * (y * z + x * w), 1 - s * (x * x + y * y)),
    ]
    return torch.stack(entries, -1).unflatten(-1, (3, 3))


def quaternion_from_rotation(
    rotations: Float[Tensor, "*batch 3 3"],
) -> Float[Tensor, "*batch 4"]:
    """Return unit quaternions (x, y, z, w) with w >= 0.

    Each component can be found from the diagonal up to its sign, and the others from it by
    division; starting from the largest of the four is well conditioned everywhere.
    """
    xx, yy, zz = rotations.diagonal(dim1=-2, dim2=-1).unbind(-1)
    squares = [1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz]
    doubled = torch.stack(squares, -1).clamp_min(1e-12).sqrt()  # Twice |x|, |y|, |z|, |w|.
    # Row i is four times component i of the quaternion times the whole quaternion.
    products = functional.pad(rotations + rotations.mT, (0, 1, 0, 1))
    differences = (rotations - rotations.mT)[..., [2, 0, 1], [1, 2, 0]]
    products[..., :3, 3] = products[..., 3, :3] = differences
    products.diagonal(dim1=-2, dim2=-1).copy_(doubled**2)
    best = doubled.argmax(-1)[..., None, None].expand(*doubled.shape[:-1], 1, 4)
    quaternions = functional.normalize(products.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quaternions[..., 3:] < 0, -quaternions, quaternions)
