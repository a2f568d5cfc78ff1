"""Measure the memory of encoding, rendering and a training step: python -m benchmarks.memory.

For each number of source views and each image size: on a GPU the peak of PyTorch's allocations, on
a CPU (Linux only) the peak growth of the process, both without the weights. The views are noise
because memory does not depend on the content.
"""

from __future__ import annotations

if __name__ == "__main__":
    from utils.interrupts import stop_at_once

    stop_at_once()

import ctypes
import gc
import logging
import sys
from collections.abc import Callable
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

    essential_flags: ClassVar = {
        "the model": ("ckpt", "device", "precision", "chunk"),
        "what is measured": ("views", "heights", "widths", "batch_size", "out"),
    }

    views: Annotated[tuple[int, ...], Within(1)] = (3, 6, 12)
    """numbers of source views"""
    heights: Sides = (192, 384)
    """heights of the images"""
    widths: Sides = (256, 512)
    """width for each of the heights"""
    batch_size: Count = 8192
    """pixels per training step"""
    out: str = "results/memory.json"
    """JSON file for the results"""

    def __post_init__(self) -> None:
        """Check that each height has a width."""
        super().__post_init__()
        if len(self.heights) != len(self.widths):
            raise ValueError(f"heights={self.heights} and widths={self.widths} go in pairs")


def run_benchmark(config: MemoryConfig) -> str:
    """Measure all combinations, write the results, and return them as a table."""
    out = check_output_file(config.out, "--out")
    (device,) = choose_devices(config.device)
    if device.type == "cpu" and not _CLEAR.exists():
        raise UserError(
            "--device cpu: the peak memory of a process can be measured on Linux only; use a GPU"
        )
    checkpoint = read_checkpoint(config.ckpt).with_overrides(config.vggt_path)
    model = checkpoint.build_model(device)
    settings = GeneralTrainingConfig(
        model=checkpoint.model_config, optimizer=OptimizerConfig(batch_size=config.batch_size)
    )
    rows: dict[str, dict[str, float]] = {}
    for height, width in zip(config.heights, config.widths, strict=True):
        for views in config.views:
            sample = noise_sample(views, (height, width)).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
                row = measure_rendering(model, sample, config.chunk)
                row["training"] = measure_step(model, settings, sample)
            name = f"{width}x{height}, {views} views"
            rows[name] = row
            stages = ", ".join(f"{stage} {mebibytes:.0f}" for stage, mebibytes in row.items())
            logger.info("%s: %s MiB", name, stages)
    device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    report = {
        "mebibytes": rows,
        "device": device_name,
        "precision": config.precision,
        "batch_size": config.batch_size,
        "torch": torch.__version__,
    }
    write_json(report, out)
    title = f"{device_name}, {config.precision}, steps of {config.batch_size} pixels"
    return "\n".join([title, *format_table(rows, _COLUMNS), f"the results are in {out}"])


@torch.no_grad()
def measure_rendering(model: VGGTNeRF, sample: Sample, chunk: int | None) -> dict[str, float]:
    """Return the peak memory of encoding and of rendering an image of the same size, in MiB."""
    device, target = sample.near_far.device, sample.targets
    scene, encoding = peak_memory(device, lambda: model.encode(sample.sources, sample.near_far))
    view = (scene, target.cameras[:, 0], sample.near_far, target.size, chunk)
    _, rendering = peak_memory(device, lambda: model.render_images(*view))
    return {"encode": encoding, "render": rendering}


def measure_step(model: VGGTNeRF, config: GeneralTrainingConfig, sample: Sample) -> float:
    """Return the peak memory of a forward and backward pass, in MiB."""
    device = sample.near_far.device
    module = GeneralModule(model.requires_grad_(True).train(), config)
    # Logging needs a trainer, which is absent here.
    module.log = module.log_dict = lambda *_, **__: None
    generator = torch.Generator(device).manual_seed(0)
    _, peak = peak_memory(device, lambda: module.compute_loss(sample, generator).backward())
    model.zero_grad(set_to_none=True)
    model.requires_grad_(False).eval()
    return peak


def peak_memory(device: torch.device, job: Callable[[], ResultT]) -> tuple[ResultT, float]:
    """Return the result of a job and the peak growth of memory while it runs, in MiB."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        result = job()
        return result, (torch.cuda.max_memory_allocated(device) - before) / 2**20
    # Return freed memory to the system; otherwise the job could reuse it unnoticed.
    ctypes.CDLL(None).malloc_trim(0)
    # Reset the peak, VmHWM.
    _CLEAR.write_text("5")
    before = _status_kib("VmRSS")
    result = job()
    return result, (_status_kib("VmHWM") - before) / 2**10


def noise_sample(views: int, size: tuple[int, int]) -> Sample:
    """Return source views and one target of noise, with cameras on a line."""
    height, width = size
    generator = torch.Generator().manual_seed(0)
    intrinsics = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]])
    c2w = torch.eye(4).repeat(1, views + 1, 1, 1)
    c2w[..., 0, 3] = torch.arange(views + 1) / 10
    all_views = Views(
        images=torch.rand(1, views + 1, 3, *size, generator=generator),
        cameras=Cameras(intrinsics.expand(1, views + 1, 3, 3), c2w),
        depths=1 + torch.rand(1, views + 1, *size, generator=generator),
        masks=torch.ones(1, views + 1, *size, dtype=torch.bool),
    )
    near_far = torch.tensor([[0.5, 3.0]])
    ids = (tuple(range(views)),), ((views,),)
    return Sample(all_views[:, :views], all_views[:, views:], near_far, ("noise",), *ids)


def _status_kib(name: str) -> int:
    lines = dict(line.split(":") for line in _STATUS.read_text().splitlines())
    return int(lines[name].split()[0])


main = command(MemoryConfig, run_benchmark, __doc__)

if __name__ == "__main__":
    sys.exit(main())
