"""Runs of both trainings that take a second or two on one core, and what they must leave."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datasets.procedural.config import ProceduralConfig
from datasets.procedural.dtu_writer import DtuSettings, write_dtu
from datasets.procedural.generator import ProceduralGenerator
from utils.checkpoints import load_safely

_GENERAL = """
--backbone none --feature_channels 8 --coarse_channels 8
--pyramid_width 16 --field_width 8 --similarity_groups 2 --ray_heads 2 --view_width 8
--volume_channels 2 --volume_groups 2 --volume_widths 8 8 --fine_planes 3 --fine_widths 8
--decoder_widths 8 8 --composited_channels 4 --N_planes 8 --N_samples 4 --batch_size 144
--num_workers 0 --num_nearest 4 --min_sources 2 --max_sources 3 --warmup_steps 3
--batches_per_epoch 3 --num_epochs 3 --save_every 2 --val_views 2 --device cpu --devices 1
""".split()
_FINE_TUNING = """
--n_views 3 --batch_size 96 --targets_per_step 1 --spare_sources 1 --refine_every 2
--num_steps 6 --val_every 3 --save_every 2 --device cpu
""".split()
_NAME = "tiny"
_UNCOUNTED = re.compile(r"logs/|\.lock|ckpts/\w+\.\d+\.\w+$")


@dataclass(frozen=True)
class TinyRun:
    """One of the trainings, with settings that make it short."""

    name: str
    script: str
    flags: tuple[str, ...]
    last: str
    """The file that it resumes from, below the folder of all runs."""

    def flags_to_go_on(self, runs: Path) -> list[str]:
        """Return the flags that resume what there is, or start."""
        last = runs / self.last
        resumed = ("--ckpt", str(last)) if last.exists() else ()
        return [*self.flags, "--save_dir", str(runs), *resumed]

    def go_on(self, runs: Path) -> int:
        """Run the script in this process and return its exit status."""
        return importlib.import_module(self.script).main(self.flags_to_go_on(runs))

    def result(self, runs: Path) -> dict[str, Any]:
        """Return what two runs that went alike have in common, and the names of all files."""
        last = runs / self.last
        folder, content = last.parents[1], load_safely(last)
        files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        # A run that starts anew keeps what it finds as best.1.tar.
        kept = sorted(name for name in files if not _UNCOUNTED.match(name))
        if "training" not in content:
            return {"state": [content["state_dict"], content["optimizer_states"]], "files": kept}
        psnr = [(row["step"], row["psnr"]) for row in content["training"]["curve"]]
        return {"state": [content["state"], content["training"]["progress"], psnr], "files": kept}


def step_of(path: Path) -> int:
    """Return the number of steps that a file has seen; 0 if it is not there."""
    if not path.exists():
        return 0
    content = load_safely(path)
    return content.get("global_step") or content["training"]["progress"]["step"]


def write_data(folder: Path) -> Path:
    """Write two scenes of eight views of 80x64."""
    generator = ProceduralGenerator(ProceduralConfig(rig="dtu", samples=1))
    return write_dtu(generator, folder, DtuSettings((0, 1), (64, 80), num_views=8))


def general_training(data: Path) -> TinyRun:
    """Return a general training of nine steps with three validations."""
    flags = (*_GENERAL, "--datadir", str(data), "--expname", _NAME)
    return TinyRun("general training", "train_vggt_nerf_pl", flags, f"{_NAME}/ckpts/last.ckpt")


def fine_tuning(data: Path, checkpoint: Path) -> TinyRun:
    """Return a fine-tuning of a checkpoint with six steps and three validations."""
    where = ("--datadir", str(data / "scan2"), "--init_ckpt", str(checkpoint), "--expname", _NAME)
    last = f"scan2/{_NAME}/ckpts/latest.tar"
    flags = (*_FINE_TUNING, *where)
    return TinyRun("fine-tuning", "train_vggt_nerf_finetuning_pl", flags, last)


def same(ours: object, theirs: object) -> bool:
    """Compare nested plain data with tensors to the bit."""
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs
