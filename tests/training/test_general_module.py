import pytest
import torch

from models.training import gradient_guard
from models.training.general_module import GeneralModule
from models.training.gradient_guard import NonFiniteTrainingError
from models.training.losses import LossConfig, TargetRays, rendering_losses
from models.training.optimization import OptimizerConfig, build_optimizer
from models.vggt_nerf import Rendering, VGGTNeRF
from models.volume_rendering import Composite


class OneWeight(VGGTNeRF):
    """As little of a model as an optimiser step needs."""

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.ones(3))


def make_module(max_bad_steps=3, grad_clip=1.0):
    module = GeneralModule(
        OneWeight(),
        OptimizerConfig(max_bad_steps=max_bad_steps, grad_clip=grad_clip),
        LossConfig(),
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
        optimizer, schedule = build_optimizer([torch.nn.Parameter(torch.zeros(1))], config, 20)
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
    assert all(a > b for a, b in zip(whole[5:], whole[6:], strict=False))
    assert 0.1 <= whole[-1] < 0.15
    for cut in (2, 4, 5, 11):
        first, state = run(cut)
        rest, _ = run(20 - cut, state)
        assert first + rest == whole, cut


def fake_rendering(rgb, depth):
    composite = Composite(rgb, depth, torch.ones_like(depth), torch.ones(*depth.shape, 1))
    return Rendering(composite, composite)


def test_losses_by_hand():
    truth = TargetRays(
        rgb=torch.zeros(1, 3, 3),
        depth=torch.tensor([[2.0, 0.0, 4.0]]),
        valid=torch.tensor([[True, True, False]]),
    )
    rgb = torch.tensor([[[0.1, 0.1, 0.1], [0.3, 0.3, 0.3], [float("inf")] * 3]])
    rendering = fake_rendering(rgb, torch.tensor([[3.0, 9.0, 9.0]]))
    near_far = torch.tensor([[1.0, 5.0]])
    losses = rendering_losses(rendering, truth, near_far, LossConfig(0.5, 2.0))
    assert float(losses.fine) == pytest.approx((0.01 + 0.09) / 2)
    assert float(losses.depth) == pytest.approx(0.25)
    assert float(losses.total) == pytest.approx(0.05 * 1.5 + 2 * 0.25)


def test_depth_loss_without_depth_is_zero():
    truth = TargetRays(torch.zeros(1, 2, 3), torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
    rendering = fake_rendering(torch.zeros(1, 2, 3), torch.ones(1, 2))
    losses = rendering_losses(rendering, truth, torch.tensor([[1.0, 2.0]]), LossConfig(0.5, 1.0))
    assert float(losses.depth) == 0 and float(losses.total) == 0
