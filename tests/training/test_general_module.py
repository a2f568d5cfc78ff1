import math
from itertools import pairwise

import pytest
import torch

from datasets.views import Sample, Views
from models.ray_sampling import DepthPlanes
from models.vggt_nerf import RenderedImages, Rendering, VGGTNeRF
from models.volume_rendering import Composite
from training import gradient_guard
from training.general_module import GeneralModule, StepConfig
from training.losses import LossConfig, distortion, plane_entropy, rendering_losses
from training.optimization import OptimizerConfig, build_optimizer
from training.ray_batches import TargetRays
from utils.cameras import Cameras
from utils.errors import NonFiniteTrainingError


class OneWeight(VGGTNeRF):
    """As little of a model as an optimiser step needs."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.ones(3))


def make_module(max_bad_steps=3, grad_clip=1.0):
    module = GeneralModule(
        OneWeight(),
        StepConfig(OptimizerConfig(max_bad_steps=max_bad_steps, grad_clip=grad_clip)),
        settings={},
        seed=0,
        chunk=1,
    )
    module.log = module.log_dict = lambda *args, **kwargs: None
    return module


@pytest.fixture
def step():
    def take(module, optimizer, gradient):
        module.model.weight.grad = torch.tensor(gradient)
        module.configure_gradient_clipping(optimizer)
        optimizer.step()

    return take


def test_a_fused_optimizer_skips_bad_gradients_by_itself(step, monkeypatch):
    monkeypatch.setattr(gradient_guard, "LOOK_EVERY", 3)
    module = make_module()
    optimizer = torch.optim.AdamW(module.model.parameters(), lr=0.1, fused=True)
    step(module, optimizer, [1.0, 0.0, 0.0])
    before = module.model.weight.detach().clone()
    step(module, optimizer, [float("nan"), 0.0, 0.0])
    assert torch.equal(module.model.weight, before)
    assert module.guard.state() == [1, 1]
    step(module, optimizer, [1.0, 0.0, 0.0])
    assert not torch.equal(module.model.weight, before)
    before = module.model.weight.detach().clone()
    with pytest.raises(NonFiniteTrainingError, match="5 steps in a row"):
        for _ in range(6):
            step(module, optimizer, [float("inf"), 1.0, 0.0])
    assert torch.equal(module.model.weight, before)


def test_bad_gradients_leave_the_weights_alone_and_stop_the_run(step):
    module = make_module()
    optimizer = torch.optim.AdamW(module.model.parameters(), lr=0.1)
    step(module, optimizer, [1.0, 0.0, 0.0])
    before = module.model.weight.detach().clone()
    for value in (float("nan"), float("inf")):
        step(module, optimizer, [value, 0.0, 0.0])
    assert torch.equal(module.model.weight, before)
    assert module.guard.bad_steps == module.guard.bad_steps_in_a_row == 2
    step(module, optimizer, [1.0, 0.0, 0.0])
    assert module.guard.bad_steps_in_a_row == 0 and not torch.equal(module.model.weight, before)
    before = module.model.weight.detach().clone()
    with pytest.raises(NonFiniteTrainingError, match="3 steps in a row"):
        for _ in range(3):
            step(module, optimizer, [float("nan")] * 3)
    assert torch.equal(module.model.weight, before)


def test_gradients_are_clipped_to_the_norm(step):
    module = make_module(grad_clip=0.5)
    optimizer = torch.optim.SGD(module.model.parameters(), lr=1.0)
    step(module, optimizer, [3.0, 4.0, 0.0])
    torch.testing.assert_close(
        module.model.weight.detach(), torch.tensor([1 - 0.3, 1 - 0.4, 1.0]), atol=1e-5, rtol=0
    )


@pytest.mark.filterwarnings("ignore:To get the last learning rate")
def test_learning_rate_curve_and_its_resume():
    config = OptimizerConfig(lrate=1.0, lrate_end=0.1, warmup_steps=4)

    def run(steps, saved=None):
        optimizer, schedule = build_optimizer(
            [("x", torch.nn.Parameter(torch.zeros(1)))], config, 20
        )
        if saved:
            optimizer.load_state_dict(saved[0])
            schedule.load_state_dict(saved[1])
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return rates, (optimizer.state_dict(), schedule.state_dict())

    whole, _ = run(20)
    assert whole[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1.0])
    assert all(a > b for a, b in pairwise(whole[5:]))
    assert 0.1 <= whole[-1] < 0.15
    for cut in (2, 4, 5, 11):
        first, state = run(cut)
        rest, _ = run(20 - cut, state)
        assert first + rest == whole, cut


class Ranks:
    """Stand in for a trainer whose other rank has found these depth errors."""

    def __init__(self, total, count):
        self.strategy, self.others, self.calls = self, torch.tensor([total, count]), 0

    def reduce(self, tensor, reduce_op):
        assert reduce_op == "sum"
        self.calls += 1
        return tensor + self.others


@pytest.mark.parametrize(
    ("known", "others", "shown"),
    [
        ([True, True, False], (0.0, 0.0), 2.0),
        ([False, False, False], (5.0, 2.0), 2.5),
        ([True, False, True], (5.0, 2.0), 2.25),
        ([False, False, False], (0.0, 0.0), None),
    ],
)
def test_every_rank_takes_part_in_the_depth_error(monkeypatch, known, others, shown):
    logged = {}
    module = make_module()
    module.log = lambda name, value, **kwargs: logged.update({name: float(value)})
    images = RenderedImages(
        torch.zeros(3, 3, 2, 2), torch.full((3, 2, 2), 3.0), torch.ones(3, 2, 2)
    )
    module.model.encode = lambda *args: None
    module.model.render_images = lambda *args: images
    monkeypatch.setattr(GeneralModule, "trainer", Ranks(*others))
    cameras = Cameras(torch.eye(3).expand(3, 1, 3, 3), torch.eye(4).expand(3, 1, 4, 4))
    depths = torch.tensor(known).float().reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    views = Views(torch.rand(3, 1, 3, 2, 2), cameras, depths, torch.ones_like(depths).bool())
    batch = Sample(views, views, NEAR_FAR.expand(3, 2), ("x",) * 3, ((0,),) * 3, ((0,),) * 3)
    for _ in range(2):
        logged.clear()
        module.on_validation_epoch_start()
        module.validation_step(batch, 0)
        module.on_validation_epoch_end()
        assert logged.pop("val/PSNR") > 0
        assert logged == ({} if shown is None else {"val/depth_error": shown})
    assert module.trainer.calls == 2


NEAR_FAR = torch.tensor([[1.0, 5.0]])


def fake_rendering(rgb, depth, planes=4):
    weights = torch.full((*depth.shape, planes), 1 / planes)
    composite = Composite(rgb, depth, torch.ones_like(depth), weights)
    edges = torch.linspace(0, 1, planes + 1).expand(*depth.shape, -1)
    return Rendering(composite, edges, composite.weights, composite)


def rays(rgb, depth, valid, **patches):
    return TargetRays(torch.zeros(*depth.shape, 2), rgb, depth, valid, **patches)


def test_losses_by_hand():
    truth = rays(
        rgb=torch.zeros(1, 1, 3, 3),
        depth=torch.tensor([[[2.0, 0.0, 4.0]]]),
        valid=torch.tensor([[[True, True, False]]]),
    )
    rgb = torch.tensor([[[[0.1, 0.1, 0.1], [0.3, 0.3, 0.3], [float("inf")] * 3]]])
    rendering = fake_rendering(rgb, torch.tensor([[[3.0, 9.0, 9.0]]]))
    losses = rendering_losses(rendering, truth, NEAR_FAR, LossConfig(0.5, 2.0, 0.1))
    assert float(losses.fine) == pytest.approx((0.01 + 0.09) / 2)
    assert float(losses.depth) == pytest.approx(0.25)
    assert float(losses.planes) == pytest.approx(math.log(4), rel=1e-3)
    assert float(losses.total) == pytest.approx(0.05 * 1.5 + 2 * 0.25 + 0.1 * math.log(4), rel=1e-3)


def test_depth_losses_without_depth_are_zero():
    truth = rays(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2), torch.ones(1, 1, 2).bool())
    rendering = fake_rendering(torch.zeros(1, 1, 2, 3), torch.ones(1, 1, 2))
    losses = rendering_losses(rendering, truth, NEAR_FAR, LossConfig())
    assert float(losses.depth) == 0 and float(losses.planes) == 0 and float(losses.total) == 0


@pytest.mark.parametrize("lindisp", [False, True])
def test_plane_entropy_is_least_at_the_planes_around_the_true_depth(lindisp):
    planes = DepthPlanes(NEAR_FAR, 8, lindisp)
    depth = planes.depths(torch.tensor([[[3.25 / 8]]]))
    known = torch.ones(1, 1, 1, dtype=torch.bool)
    # A quarter short of the middle of plane 3: three quarters of plane 3, one quarter of plane 2.
    values = {
        plane: plane_entropy(torch.eye(8)[plane].reshape(1, 1, 1, 8), depth, known, planes)
        for plane in range(8)
    }
    assert min(values, key=values.get) == 3 and sorted(values, key=values.get)[1] == 2
    beyond = torch.full((1, 1, 1), 7.0)
    assert plane_entropy(torch.ones(1, 1, 1, 8), beyond, known, planes) == 0


def test_distortion_is_the_mean_distance_between_two_draws():
    edges = torch.linspace(0, 1, 5)
    weights = torch.tensor([0.5, 0.0, 0.0, 0.5])
    # Different bins lie 0.75 apart; inside one bin of width w two draws are w / 3 apart.
    expected = 2 * 0.25 * 0.75 + 2 * 0.25 * 0.25 / 3
    assert float(distortion(weights, edges)) == pytest.approx(expected)
    assert distortion(torch.tensor([0.0, 1.0, 0.0, 0.0]), edges) < distortion(weights, edges)


def test_patches_are_judged_as_pictures():
    generator = torch.Generator().manual_seed(0)
    truth_rgb = torch.rand(1, 1, 2 * 64 + 3, 3, generator=generator)
    valid = torch.ones(1, 1, 131, dtype=torch.bool)
    valid[0, 0, 70] = False
    truth = rays(truth_rgb, torch.zeros(1, 1, 131), valid, num_patches=2, patch_size=8)
    same = fake_rendering(truth_rgb, torch.ones(1, 1, 131))
    config = LossConfig(ssim_weight=1.0)
    assert float(rendering_losses(same, truth, NEAR_FAR, config).ssim) == pytest.approx(0, abs=1e-4)
    spoilt = truth_rgb.clone()
    spoilt[:, :, 64:] = 0.5
    # The second patch has an invalid pixel and does not count.
    other = fake_rendering(spoilt, torch.ones(1, 1, 131))
    assert float(rendering_losses(other, truth, NEAR_FAR, config).ssim) == pytest.approx(
        0, abs=1e-4
    )
    spoilt = truth_rgb.clone()
    spoilt[:, :, :64] = 0.5
    other = fake_rendering(spoilt, torch.ones(1, 1, 131))
    assert float(rendering_losses(other, truth, NEAR_FAR, config).ssim) > 0.3


def test_perceptual_distance_is_used_when_there_is_one():
    truth = rays(
        torch.zeros(1, 1, 64, 3),
        torch.zeros(1, 1, 64),
        torch.ones(1, 1, 64).bool(),
        num_patches=1,
        patch_size=8,
    )
    rendering = fake_rendering(torch.full((1, 1, 64, 3), 0.25), torch.ones(1, 1, 64))
    config = LossConfig(0.0, 0.0, 0.0, 0.0, lpips_weight=2.0)

    def distance(ours, theirs):
        return (ours - theirs).abs().mean((1, 2, 3))

    losses = rendering_losses(rendering, truth, NEAR_FAR, config, perceptual=distance)
    assert float(losses.lpips) == 0.25 and float(losses.total) == pytest.approx(0.0625 + 0.5)
    assert float(rendering_losses(rendering, truth, NEAR_FAR, config).lpips) == 0


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="ssim_weight=-1"):
        LossConfig(ssim_weight=-1.0)
