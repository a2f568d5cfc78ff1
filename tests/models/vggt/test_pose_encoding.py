from math import pi

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.vggt.pose_encoding import (
    decode_pose,
    encode_pose,
    quaternion_from_rotation,
    rotation_from_quaternion,
)
from utils.cameras import Cameras


def random_rotations(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(count, 3, 3, generator=generator, dtype=torch.float64)
    orthogonal = torch.linalg.qr(matrices).Q
    return orthogonal * orthogonal.det()[:, None, None]


def test_rotation_round_trip_everywhere():
    rotations = random_rotations(1000)
    quaternions = quaternion_from_rotation(rotations)
    torch.testing.assert_close(rotation_from_quaternion(quaternions), rotations)
    torch.testing.assert_close(quaternions.norm(dim=-1), torch.ones(1000).double())
    assert (quaternions[:, 3] >= 0).all()


@pytest.mark.parametrize("axis", range(3))
def test_half_turns_and_identity(axis: int):
    expected = torch.zeros(4)
    expected[axis] = 1.0
    half_turn = -torch.eye(3)
    half_turn[axis, axis] = 1.0
    torch.testing.assert_close(quaternion_from_rotation(half_turn), expected)
    identity = quaternion_from_rotation(torch.eye(3))
    torch.testing.assert_close(identity, torch.tensor([0.0, 0.0, 0.0, 1.0]))


def test_quarter_turn_by_hand():
    quaternion = torch.tensor([0.0, 0.0, 2.0, 2.0])  # About z, any norm.
    rotation = rotation_from_quaternion(quaternion)
    torch.testing.assert_close(
        rotation @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    )


@given(st.floats(0.1, 3.0), st.floats(0.1, 3.0))
def test_camera_round_trip(fov_h: float, fov_w: float):
    pose = torch.tensor([1.0, -2.0, 3.0, 0.1, 0.2, -0.3, 0.9, fov_h, fov_w], dtype=torch.float64)
    pose[3:7] /= pose[3:7].norm()
    cameras = decode_pose(pose, 30, 50)
    torch.testing.assert_close(encode_pose(cameras, 30, 50), pose)


def test_field_of_view_by_hand():
    intrinsics = torch.tensor([[50.0, 0.0, 50.0], [0.0, 15.0, 15.0], [0.0, 0.0, 1.0]])
    pose = encode_pose(Cameras(intrinsics, torch.eye(4)), height=30, width=100)
    torch.testing.assert_close(pose[7:], torch.tensor([pi / 2, pi / 2]))
    decoded = decode_pose(pose, 30, 100)
    torch.testing.assert_close(decoded.intrinsics, intrinsics)


def test_translation_is_of_world_to_camera():
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    pose = encode_pose(Cameras(torch.eye(3), c2w), 2, 2)
    torch.testing.assert_close(pose[:3], torch.tensor([-1.0, -2.0, -3.0]))
    torch.testing.assert_close(decode_pose(pose, 2, 2).c2w, c2w)


@pytest.mark.parametrize("fov", [0.0, -1.0, pi, 10.0])
def test_degenerate_predictions_stay_finite(fov: float):
    pose = torch.tensor([0.0] * 7 + [fov, fov], requires_grad=True)
    cameras = decode_pose(pose, 30, 50)
    (cameras.c2w.sum() + cameras.intrinsics.sum()).backward()
    assert cameras.c2w.isfinite().all()
    assert cameras.intrinsics.isfinite().all()
    assert (cameras.intrinsics.diagonal() > 0).all()
    assert pose.grad is not None and pose.grad.isfinite().all()
