"""Out of memory in any script: one line, with flags that the script has."""

import pytest
import torch

import evaluate_vggt_nerf
import render_video
import train_vggt_nerf_finetuning_pl
import train_vggt_nerf_pl
from models import vggt_nerf
from models.decoder import Decoder

pytestmark = pytest.mark.filterwarnings("default")
ERROR = "CUDA out of memory. Tried to allocate 4096.00 GiB."
STAGES = {
    "encode": (vggt_nerf, "build_depth_prior"),
    "rays": (vggt_nerf, "render_bundles"),
    "whole": (Decoder, "forward"),
}


@pytest.fixture
def scripts(tiny_checkpoint, tiny_dtu, tiny_flags, scene_flags, tmp_path, monkeypatch):
    """For each script its main and flags."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    common = ["--ckpt", tiny_checkpoint, "--datadir", tiny_dtu, "--device", "cpu"]
    runs = ["--save_dir", tmp_path / "runs"]
    return {
        "evaluate": (evaluate_vggt_nerf.main, [*common, "--out", tmp_path / "figures.json"]),
        "video": (
            render_video.main,
            [*common, "--n_frames", 2, "--size", 64, 80, "--out", tmp_path / "video.mp4"],
        ),
        "train": (train_vggt_nerf_pl.main, [*tiny_flags, *runs]),
        "fine-tune": (train_vggt_nerf_finetuning_pl.main, [*scene_flags, *runs]),
    }


@pytest.mark.parametrize(
    ("script", "stage", "flags"),
    [
        ("evaluate", "encode", "--n_views 1"),
        ("evaluate", "rays", "--chunk"),
        ("evaluate", "whole", "--image_size"),
        ("video", "encode", "--n_views 1"),
        ("video", "rays", "--chunk"),
        ("video", "whole", "--size"),
        # Lightning validates before it trains.
        ("train", "encode", "--num_source_views 1"),
        ("train", "rays", "--val_chunk"),
        ("fine-tune", "rays", "--chunk"),
        ("fine-tune", "encode", "--n_views 1"),
    ],
)
def test_each_stage_names_what_to_lower(
    scripts, script, stage, flags, run_main, monkeypatch, tmp_path
):
    main, argv = scripts[script]
    # So much room that half of everything fits.
    monkeypatch.setattr("utils.memory.free_memory", lambda device: 5 << 39)

    def fail(*_):
        raise torch.OutOfMemoryError(ERROR)

    monkeypatch.setattr(*STAGES[stage], fail)
    status, said = run_main(main, *argv)
    assert status == 1 and said.count("out of memory:") == 1 and "Traceback" not in said
    assert f"Give {flags}" in said, said


def test_a_step_names_pixels_and_sources(scripts, run_main, monkeypatch):
    main, argv = scripts["train"]
    monkeypatch.setattr("utils.memory.free_memory", lambda device: 5 << 39)

    def fail(*_, **__):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] data. DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 4398046511104 bytes."
        )

    monkeypatch.setattr(torch.Tensor, "backward", fail)
    status, said = run_main(main, *argv)
    assert status == 1
    assert "--batch_size 72 (it was 144), or --min_sources 1 --max_sources 1 (it was 3)" in said
