from math import pi

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.vggt.pose_encoding import decode_pose, encode_pose
from utils.cameras import Cameras


def cameras_of(rotations):
    """Cameras in the origin, turned by these rotations from the world to the camera."""
    c2w = torch.eye(4, dtype=rotations.dtype).repeat(len(rotations), 1, 1)
    c2w[:, :3, :3] = rotations.mT
    return Cameras(torch.eye(3, dtype=rotations.dtype).repeat(len(rotations), 1, 1), c2w)


def test_rotation_round_trip_everywhere():
    generator = torch.Generator().manual_seed(0)
    orthogonal = torch.linalg.qr(torch.randn(1000, 3, 3, generator=generator).double()).Q
    rotations = orthogonal * orthogonal.det()[:, None, None]
    poses = encode_pose(cameras_of(rotations), 30, 50)
    torch.testing.assert_close(decode_pose(poses, 30, 50).w2c[:, :3, :3], rotations)
    torch.testing.assert_close(poses[:, 3:7].norm(dim=-1), torch.ones(1000).double())
    assert (poses[:, 6] >= 0).all()


def test_half_turns_identity_and_a_quarter_turn_by_hand():
    # Half turns about x, y and z, then the identity.
    rotations = torch.diag_embed(2 * torch.eye(4)[:, :3] - 1)
    rotations[3] = torch.eye(3)
    quaternions = encode_pose(cameras_of(rotations), 30, 50)[:, 3:7]
    torch.testing.assert_close(quaternions, torch.eye(4))
    # About z, any norm.
    pose = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 1.0, 1.0])
    quarter = decode_pose(pose, 30, 50).w2c[:3, :3]
    torch.testing.assert_close(quarter @ torch.eye(3)[0], torch.eye(3)[1])


@given(st.floats(0.1, 3.0), st.floats(0.1, 3.0))
def test_camera_round_trip(fov_h, fov_w):
    pose = torch.tensor([1.0, -2.0, 3.0, 0.1, 0.2, -0.3, 0.9, fov_h, fov_w], dtype=torch.float64)
    pose[3:7] /= pose[3:7].norm()
    cameras = decode_pose(pose, 30, 50)
    torch.testing.assert_close(encode_pose(cameras, 30, 50), pose)


def test_camera_by_hand():
    intrinsics = torch.tensor([[50.0, 0.0, 50.0], [0.0, 15.0, 15.0], [0.0, 0.0, 1.0]])
    c2w = torch.eye(4)
    c2w[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    pose = encode_pose(Cameras(intrinsics, c2w), height=30, width=100)
    # The translation is of world-to-camera; both fields of view are right angles.
    expected = torch.tensor([-1.0, -2.0, -3.0, 0.0, 0.0, 0.0, 1.0, pi / 2, pi / 2])
    torch.testing.assert_close(pose, expected)
    decoded = decode_pose(pose, 30, 100)
    torch.testing.assert_close(decoded.intrinsics, intrinsics)
    torch.testing.assert_close(decoded.c2w, c2w)


@pytest.mark.parametrize("fov", [0.0, -1.0, pi, 10.0])
def test_degenerate_predictions_stay_finite(fov):
    pose = torch.tensor([0.0] * 7 + [fov, fov], requires_grad=True)
    cameras = decode_pose(pose, 30, 50)
    (cameras.c2w.sum() + cameras.intrinsics.sum()).backward()
    assert cameras.c2w.isfinite().all()
    assert cameras.intrinsics.isfinite().all()
    assert (cameras.intrinsics.diagonal() > 0).all()
    assert pose.grad is not None and pose.grad.isfinite().all()
