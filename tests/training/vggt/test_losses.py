"""True geometry in the first camera's frame, and the losses on what the heads predict."""

from dataclasses import replace

import pytest
import torch

from datasets.views import Views
from models.vggt.network import VGGTPrediction
from models.vggt.pose_encoding import decode_pose
from training.losses import log_bounded
from training.vggt import losses
from training.vggt.losses import (
    ERROR_LIMIT,
    MAX_CONFIDENCE,
    camera_loss,
    dense_loss,
    geometry_losses,
    geometry_targets,
)
from utils.cameras import pixel_grid, unproject


def perfect(views):
    targets = geometry_targets(views)
    confidence = torch.full_like(targets.depth, MAX_CONFIDENCE)
    return VGGTPrediction(
        pose_enc=targets.pose_enc,
        pose_encodings=(targets.pose_enc,) * 4,
        depth=targets.depth[..., None],
        depth_conf=confidence,
        world_points=targets.points,
        world_points_conf=confidence,
    )


def test_the_truth_is_the_optimum(views):
    targets, best = geometry_targets(views), perfect(views)
    lowest = geometry_losses(best, targets)
    assert lowest["camera"] == 0
    worse = replace(best, depth=1.01 * best.depth)
    assert geometry_losses(worse, targets)["loss"] > lowest["loss"]
    for factor in (0.9, 1.1):
        other = replace(best, depth_conf=factor * best.depth_conf)
        assert geometry_losses(other, targets)["loss"] > lowest["loss"]


def test_camera_loss_by_hand():
    truth = torch.zeros(1, 2, 9)
    truth[0, 1, 0] = 0.4  # Mean distance from the first camera: 0.2.
    off = truth.clone()
    off[0, 0, 0] = 1.0  # Weight 0.25 / 0.2. Beyond delta 0.01: slope 1, minus half of delta.
    off[0, 1, 8] = 0.01  # Within: quadratic, and at half weight.
    expected = ((1.25 - 0.005) + 0.5 * 0.005**2 / 0.01) / 18
    single = camera_loss([off], truth)
    torch.testing.assert_close(single, torch.tensor(expected))
    iterated = camera_loss([off, truth, truth], truth)
    torch.testing.assert_close(iterated, torch.tensor(0.36 * expected))
    # Cameras at one place: the unit is bounded.
    truth = torch.zeros(1, 2, 9)
    off = truth.clone()
    off[0, 1, :3] = 0.03
    expected = 3 * (0.25 - 0.005) / 18
    torch.testing.assert_close(camera_loss([off], truth), torch.tensor(expected))


def dense(errors, confidence=1.0, valid=None, strides=()):
    """Return the loss of errors (height, width, channel), everywhere equally confident."""
    size = (1, 1, *errors.shape[:2])
    valid = torch.ones(size, dtype=torch.bool) if valid is None else valid.expand(size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(losses, "GRADIENT_STRIDES", strides)
        return dense_loss(errors[None, None], torch.full(size, float(confidence)), valid)


def test_dense_loss_by_hand():
    errors = torch.tensor([3.0, 4.0]).expand(2, 2, 2)  # Size 5 everywhere.
    expected = 2 * (torch.tensor(6.0).log() + 0.2 / 50) - 0.2 * torch.tensor(2.0).log()
    torch.testing.assert_close(dense(errors, 2), expected)
    # A constant error has no gradient, so that term adds nothing.
    torch.testing.assert_close(dense(errors, 2, strides=(1, 4)), expected)


def test_gradient_term_by_hand():
    errors = torch.tensor([[0.0, 0.5], [0.0, 0.5]])[..., None]
    torch.testing.assert_close(dense(errors, strides=(1,)) - dense(errors), torch.tensor(1.5).log())
    first = torch.tensor([True, False])  # No pair of valid neighbours across the step is left.
    torch.testing.assert_close(dense(errors, 1, first, (1,)), dense(errors, 1, first))


def test_best_confidence_is_bounded_and_falls_with_the_error():
    confidences = torch.linspace(1, 100, 991).tolist()

    def best(error):
        return min(confidences, key=lambda c: dense(torch.full((1, 1, 1), error), c))

    assert best(0.0) == pytest.approx(50, abs=0.2)
    assert best(0.016) == pytest.approx(0.2 / (0.016 + 0.004), abs=0.3)
    assert best(1.0) == 1.0


@pytest.mark.parametrize("logit", [-30.0, 0.0, 30.0, 80.0])
def test_gradient_through_the_exponential_is_bounded_and_small_errors_stay(logit):
    logits = torch.full((1, 1, 1), logit, requires_grad=True)
    dense(logits.exp() - 1).backward()
    assert logits.grad is not None and logits.grad.abs().max() <= ERROR_LIMIT + 1e-6
    small = torch.tensor(1e-3)
    torch.testing.assert_close(log_bounded(small, ERROR_LIMIT), small, rtol=1e-3, atol=0)


def test_invalid_pixels_change_nothing_not_even_as_nan(views):
    masks = views.masks.clone()
    masks[:, :, :9] = False
    targets = geometry_targets(Views(views.images, views.cameras, views.depths, masks))
    prediction = perfect(Views(views.images, views.cameras, views.depths, masks))
    depth = prediction.depth.clone()
    depth[:, :, :9] = torch.nan
    depth.requires_grad_(True)
    clean = geometry_losses(prediction, targets)
    dirty = geometry_losses(replace(prediction, depth=depth), targets)
    torch.testing.assert_close(dirty["loss"], clean["loss"])
    dirty["loss"].backward()
    assert depth.grad is not None and depth.grad.isfinite().all()


def test_nothing_valid_costs_nothing():
    errors = torch.rand(3, 3, 2, requires_grad=True)
    loss = dense(errors, 1, torch.tensor(False), (1, 4))
    loss.backward()
    assert loss == 0
    assert errors.grad is not None and errors.grad.abs().max() == 0


def test_near_and_far_errors_count_alike(views):
    targets = geometry_targets(views)
    best = perfect(views)
    near = torch.arange(best.depth.shape[-2]) < best.depth.shape[-2] / 2
    depth = targets.depth.clone()
    depth[..., near] *= 0.01
    truth = replace(targets, depth=depth)
    losses = []
    for half in (near, ~near):
        wrong = depth.clone()
        wrong[..., half] *= 1.1
        prediction = replace(best, depth=wrong[..., None])
        losses.append(geometry_losses(prediction, truth)["depth"])
    torch.testing.assert_close(losses[0], losses[1])


def test_points_lie_on_the_plane_in_the_first_cameras_frame(views):
    targets = geometry_targets(views)
    distances = targets.points.norm(dim=-1)
    torch.testing.assert_close(distances.mean((1, 2, 3)), torch.ones(2))
    # The plane's normal and offset as the first camera sees them, in the new unit.
    c2w = views.cameras.c2w[:, 0]
    unit = targets.depth[:, 0, 0, 0] / views.depths[:, 0, 0, 0]
    along = torch.einsum("bvhwc,bc->bvhw", targets.points, c2w[:, 2, :3])
    offset = (4.0 - c2w[:, 2, 3]) * unit
    torch.testing.assert_close(along, offset[:, None, None, None].expand_as(along))


def test_targets_agree_with_each_other(views):
    targets = geometry_targets(views)
    cameras = decode_pose(targets.pose_enc, *views.size)
    torch.testing.assert_close(cameras.c2w[:, 0], torch.eye(4).expand(2, 4, 4))
    torch.testing.assert_close(cameras.intrinsics, views.cameras.intrinsics)
    pixels = pixel_grid(*views.size, torch.device("cpu"))
    points = unproject(pixels, targets.depth.flatten(2), cameras)
    torch.testing.assert_close(points, targets.points.flatten(2, 3), rtol=1e-4, atol=1e-5)


def test_scene_scale_and_world_frame_do_not_matter(views):
    moved = Views(views.images, views.cameras.scaled_world(7.0), 7 * views.depths, views.masks)
    expected, actual = geometry_targets(views), geometry_targets(moved)
    torch.testing.assert_close(actual.points, expected.points)
    torch.testing.assert_close(actual.pose_enc, expected.pose_enc)


def test_unknown_depth_is_invalid_and_changes_nothing_else(views):
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
