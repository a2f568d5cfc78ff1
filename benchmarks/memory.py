"""Memory of encoding, rendering and a step of training: python -m benchmarks.memory.

For each number of source views and each size, beyond the weights: on a GPU what PyTorch allocates
at most, on a CPU (of Linux) how much the process grows. Views are noise; memory does not depend on
what they show.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import ctypes
import gc
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import torch

from datasets.views import Sample, Views
from evaluation.config import ModelChoice
from evaluation.report import format_table, write_json
from models.checkpoints.general import read_checkpoint
from models.vggt_nerf import VGGTNeRF
from training.config import GeneralTrainingConfig, OptimizerConfig
from training.general_module import GeneralModule
from utils.cameras import Cameras
from utils.config import command
from utils.devices import choose_devices
from utils.errors import UserError
from utils.files import check_output_file
from utils.settings import Count, Within

logger = logging.getLogger(__name__)
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_COLUMNS = [(name, f"{name} MiB", 1.0, 0) for name in ("encode", "render", "training")]
ResultT = TypeVar("ResultT")
Sides = Annotated[tuple[int, ...], Within(32)]


@dataclass(frozen=True)
class MemoryConfig(ModelChoice):
    """All settings of the benchmark."""

    essential_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "the model": ("ckpt", "device", "precision", "chunk"),
        "what is measured": ("views", "heights", "widths", "batch_size", "out"),
    }

    views: Annotated[tuple[int, ...], Within(1)] = (3, 6, 12)
    """numbers of source views"""
    heights: Sides = (192, 384)
    """heights of the images"""
    widths: Sides = (256, 512)
    """widths that go with the heights"""
    batch_size: Count = 8192
    """pixels in a step of training"""
    out: str = "results/memory.json"
    """JSON file for the figures"""

    def __post_init__(self) -> None:
        """Check that each height has a width."""
        super().__post_init__()
        if len(self.heights) != len(self.widths):
            raise ValueError(f"heights={self.heights} and widths={self.widths} go in pairs")


def run_benchmark(config: MemoryConfig) -> str:
    """Measure, write the figures, and return them as a table."""
    out = check_output_file(config.out, "--out")
    (device,) = choose_devices(config.device)
    if device.type == "cpu" and not _CLEAR.exists():
        raise UserError("--device cpu: the peak of a process is told by Linux alone")
    checkpoint = read_checkpoint(config.ckpt).with_overrides(config.vggt_path)
    model = checkpoint.build_model(device)
    settings = GeneralTrainingConfig(
        model=checkpoint.model_config, optimizer=OptimizerConfig(batch_size=config.batch_size)
    )
    rows: dict[str, dict[str, float]] = {}
    for height, width in zip(config.heights, config.widths, strict=True):
        for views in config.views:
            sample = noise(views, (height, width)).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                row = measure_rendering(model, sample, config.chunk)
                row["training"] = measure_step(model, settings, sample)
            name = f"{width}x{height}, {views} views"
            rows[name] = row
            told = ", ".join(f"{stage} {mebibytes:.0f}" for stage, mebibytes in row.items())
            logger.info("%s: %s MiB", name, told)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    about = {"device": where, "precision": config.precision, "batch_size": config.batch_size}
    write_json({"mebibytes": rows, **about, "torch": torch.__version__}, out)
    title = f"{where}, {config.precision}, steps of {config.batch_size} pixels"
    return "\n".join([title, *format_table(rows, _COLUMNS), f"all figures are in {out}"])


@torch.no_grad()
def measure_rendering(model: VGGTNeRF, sample: Sample, chunk: int | None) -> dict[str, float]:
    """Return the MiB of encoding, and of rendering an image of the same size after it."""
    device, target = sample.near_far.device, sample.targets
    scene, encoded = peak_of(device, lambda: model.encode(sample.sources, sample.near_far))
    view = (scene, target.cameras[:, 0], sample.near_far, target.size, chunk)
    return {"encode": encoded, "render": peak_of(device, lambda: model.render_images(*view))[1]}


def measure_step(model: VGGTNeRF, config: GeneralTrainingConfig, sample: Sample) -> float:
    """Return the MiB of a step's forward and backward pass, without the optimiser."""
    device = sample.near_far.device
    module = GeneralModule(model.requires_grad_(True).train(), config)
    # There is no trainer to log to.
    module.log = module.log_dict = lambda *_, **__: None
    generator = torch.Generator(device).manual_seed(0)
    _, peak = peak_of(device, lambda: module.compute_loss(sample, generator).backward())
    model.zero_grad(set_to_none=True)
    model.requires_grad_(False).eval()
    return peak


def peak_of(device: torch.device, job: Callable[[], ResultT]) -> tuple[ResultT, float]:
    """Return what a job returns, and the MiB that memory grows by at most on the way."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = job()
        return result, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    # What was freed goes back to the system, or a job would be charged less than it takes.
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text("5")
    before = _resident("VmRSS")
    result = job()
    return result, (_resident("VmHWM") - before) / 2**10


def noise(views: int, size: tuple[int, int]) -> Sample:
    """Return views in a row, one of them a target, that show noise."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    intrinsics = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]])
    c2w = torch.eye(4).repeat(1, views + 1, 1, 1)
    c2w[..., 0, 3] = torch.arange(views + 1) / 10
    every = Views(
        images=torch.rand(1, views + 1, 3, *size, generator=generator),
        cameras=Cameras(intrinsics.expand(1, views + 1, 3, 3), c2w),
        depths=1 + torch.rand(1, views + 1, *size, generator=generator),
        masks=torch.ones(1, views + 1, *size, dtype=torch.bool),
    )
    near_far = torch.tensor([[0.5, 3.0]])
    ids = (tuple(range(views)),), ((views,),)
    return Sample(every[:, :views], every[:, views:], near_far, ("noise",), *ids)


def _resident(name: str) -> int:
    lines = dict(line.split(":") for line in _STATUS.read_text().splitlines())
    return int(lines[name].split()[0])


main = command(MemoryConfig, run_benchmark, __doc__)

if __name__ == "__main__":
    sys.exit(main())
