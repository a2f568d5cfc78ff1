import torch

from datasets.views import Views
from models.vggt.pose_encoding import decode_pose
from training.vggt.targets import geometry_targets
from utils.cameras import unproject
from utils.rays import pixel_grid


def test_points_lie_on_the_plane_in_the_first_cameras_frame(views: Views):
    targets = geometry_targets(views)
    distances = targets.points.norm(dim=-1)
    torch.testing.assert_close(distances.mean((1, 2, 3)), torch.ones(2))
    # The plane's normal and offset as the first camera sees them, in the new unit.
    c2w = views.cameras.c2w[:, 0]
    unit = targets.depth[:, 0, 0, 0] / views.depths[:, 0, 0, 0]
    along = torch.einsum("bvhwc,bc->bvhw", targets.points, c2w[:, 2, :3])
    offset = (4.0 - c2w[:, 2, 3]) * unit
    torch.testing.assert_close(along, offset[:, None, None, None].expand_as(along))


def test_targets_agree_with_each_other(views: Views):
    targets = geometry_targets(views)
    cameras = decode_pose(targets.pose_enc, *views.size)
    torch.testing.assert_close(cameras.c2w[:, 0], torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(cameras.intrinsics, views.cameras.intrinsics)
    pixels = pixel_grid(*views.size, torch.device("cpu"))
    points = unproject(pixels, targets.depth.flatten(2), cameras)
    torch.testing.assert_close(points, targets.points.flatten(2, 3), rtol=1e-4, atol=1e-5)


def test_scene_scale_and_world_frame_do_not_matter(views: Views):
    moved = Views(views.images, views.cameras.scaled_world(7.0), 7 * views.depths, views.masks)
    expected, actual = geometry_targets(views), geometry_targets(moved)
    torch.testing.assert_close(actual.points, expected.points)
    torch.testing.assert_close(actual.pose_enc, expected.pose_enc)


def test_unknown_depth_is_invalid_and_changes_nothing_else(views: Views):
    depths = views.depths.clone()
    depths[0, 0, :5], depths[0, 1, :5], depths[1] = 0.0, torch.inf, torch.nan
    masks = views.masks.clone()
    masks[0, 2, :5] = False
    targets = geometry_targets(Views(views.images, views.cameras, depths, masks))
    assert not targets.valid[0, :, :5].any()
    assert targets.valid[0, :, 5:].all()
    assert not targets.valid[1].any()
    for tensor in (targets.pose_enc, targets.depth, targets.points):
        assert tensor.isfinite().all()
    mean = targets.points[0, :, 5:].norm(dim=-1).mean()
    torch.testing.assert_close(mean, torch.tensor(1.0))
