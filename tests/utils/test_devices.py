import pytest
import pytorch_lightning as pl
import torch

from utils.devices import check_devices, checked_hardware, generator_for
from utils.errors import UserError


def draw(*key):
    return torch.rand(4, generator=generator_for("cpu", *key)).tolist()


def test_same_key_same_numbers_other_key_others():
    assert draw(1, 2, 3) == draw(1, 2, 3)
    keys = [(1, 2, 3), (1, 2, 4), (1, 3, 2), (0, 2, 3), (2, 1, 3), (1, 2), (1, 2, 3, 0)]
    assert len({tuple(draw(*key)) for key in keys}) == len(keys)


def test_gpus_that_are_not_there_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for devices in ("auto", "1", "-1"):
        with pytest.raises(UserError, match="1 GPU is asked for, .* has 0 .*--device cpu"):
            check_devices("gpu", devices)
        check_devices("cpu", devices)
        check_devices("auto", devices)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_devices("gpu", "0,1")
    with pytest.raises(UserError, match="3 GPUs are asked for, .* has 2"):
        check_devices("gpu", "0,2")


@pytest.mark.parametrize("devices", ["two", "0", "0,0", "1,x", "-3", ",", "9" * 5000])
@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_devices_that_are_none(devices, accelerator):
    with pytest.raises(UserError, match=f"--devices {devices}: give a number from 1, auto, or a"):
        check_devices(accelerator, devices)


@pytest.mark.parametrize("devices", ["0,1", "65"])
def test_devices_that_a_processor_does_not_have(devices):
    with pytest.raises(UserError, match=f"--devices {devices}: (a list names GPUs|on the CPU)"):
        check_devices("cpu", devices)


@pytest.mark.parametrize("strategy", ["nonsense", "deepspeed", "fsdp"])
def test_what_lightning_says_of_settings_is_one_line(strategy):
    with (
        pytest.raises(UserError, match=f"--device cpu --devices 1 --strategy {strategy}: "),
        checked_hardware("cpu", "1", strategy),
    ):
        pl.Trainer(accelerator="cpu", devices="1", strategy=strategy, logger=False)
