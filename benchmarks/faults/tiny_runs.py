"""Tiny runs of both trainings, which take about two seconds on one core, and their results."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
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
_IGNORED_FILES = re.compile(r"logs/|\.lock|ckpts/\w+\.\d+\.\w+$")


@dataclass(frozen=True)
class TinyRun:
    """A training script with the flags of a tiny run."""

    name: str
    script: str
    flags: tuple[str, ...]
    last: str
    """Path of the last checkpoint below the folder of all runs."""

    def resume_flags(self, runs: Path) -> list[str]:
        """Return the flags that start the run, or resume it if there is a checkpoint."""
        last = runs / self.last
        ckpt = ("--ckpt", str(last)) if last.exists() else ()
        return [*self.flags, "--save_dir", str(runs), *ckpt]

    def resume(self, runs: Path) -> int:
        """Start or resume the run in this process and return its exit status."""
        return importlib.import_module(self.script).main(self.resume_flags(runs))

    def result(self, runs: Path) -> dict[str, Any]:
        """Return the state and the file names, which are equal for equivalent runs."""
        last = runs / self.last
        folder, content = last.parents[1], load_safely(last)
        files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
        # A run that starts again in a folder renames existing files, for example to best.1.tar.
        names = sorted(name for name in files if not _IGNORED_FILES.match(name))
        if "training" not in content:
            return {"state": [content["state_dict"], content["optimizer_states"]], "files": names}
        psnr = [(row["step"], row["psnr"]) for row in content["training"]["curve"]]
        return {"state": [content["state"], content["training"]["progress"], psnr], "files": names}


def step_of(path: Path) -> int:
    """Return the training step of a checkpoint; 0 if it does not exist."""
    if not path.exists():
        return 0
    content = load_safely(path)
    return content.get("global_step") or content["training"]["progress"]["step"]


def write_data(folder: Path) -> Path:
    """Write a data set of two scenes with eight views of 80x64."""
    generator = ProceduralGenerator(ProceduralConfig(rig="dtu", samples=1))
    return write_dtu(generator, folder, DtuSettings((0, 1), (64, 80), num_views=8))


def general_training(data: Path) -> TinyRun:
    """Return a general training with nine steps and three validations."""
    flags = (*_GENERAL, "--datadir", str(data), "--expname", _NAME)
    return TinyRun("general training", "train_vggt_nerf_pl", flags, f"{_NAME}/ckpts/last.ckpt")


def fine_tuning(data: Path, checkpoint: Path) -> TinyRun:
    """Return a fine-tuning of a checkpoint with six steps and three validations."""
    inputs = ("--datadir", str(data / "scan2"), "--init_ckpt", str(checkpoint), "--expname", _NAME)
    last = f"scan2/{_NAME}/ckpts/latest.tar"
    flags = (*_FINE_TUNING, *inputs)
    return TinyRun("fine-tuning", "train_vggt_nerf_finetuning_pl", flags, last)


def differences(result: Mapping[str, Any], reference: Mapping[str, Any]) -> set[str]:
    """Return the names of the entries in which two results differ."""
    return {name for name in reference if not same(result[name], reference[name])}


def same(ours: object, theirs: object) -> bool:
    """Return whether nested containers with tensors are equal bit for bit."""
    if isinstance(ours, torch.Tensor) and isinstance(theirs, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return ours.keys() == theirs.keys() and all(same(ours[k], theirs[k]) for k in ours)
    if isinstance(ours, list | tuple) and isinstance(theirs, list | tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours == theirs
