"""The reader on two real scans of DTU, where they lie beside the checkout."""

import json
from pathlib import Path

import pytest
import torch

from datasets.formats.dtu import DTUDataset
from datasets.formats.dtu_cameras import image_intrinsics, read_camera_file
from datasets.views import SampleRequest

SCENES = Path(__file__).resolve().parents[2].parent / "shared" / "scenes"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (SCENES / "dtu").is_dir(), reason="no DTU scans beside the checkout"),
]


def test_full_and_quarter_size_files_give_one_camera():
    folder = SCENES / "dtu" / "Cameras"
    for view in range(49):
        full, quarter = (
            image_intrinsics(read_camera_file(path), (512, 640))
            for path in (folder / f"{view:08d}_cam.txt", folder / f"train/{view:08d}_cam.txt")
        )
        torch.testing.assert_close(full, quarter, atol=1e-4, rtol=0)
    first = image_intrinsics(read_camera_file(folder / "00000000_cam.txt"), (512, 640))
    by_hand = [(823.205295 + 0.5) / 2 - 80, (619.070897 + 0.5) / 2 - 44]
    expected = torch.tensor(by_hand, dtype=torch.float64)
    torch.testing.assert_close(first[:2, 2], expected)


def test_protocol_chooses_the_published_sources():
    reference = json.loads((SCENES / "mvsnerf_reference.json").read_text())["scenes"]
    dataset = DTUDataset(SCENES / "dtu", "test")
    assert len(dataset) == 8
    for index in range(8):
        sample = dataset[SampleRequest(index)]
        view = reference[f"dtu_{sample.scene}"]["views"][index % 4]
        assert sample.target_ids == (view["view"],)
        assert sample.source_ids == tuple(view["sources"])
        torch.testing.assert_close(sample.near_far, torch.tensor([2.125, 1.5 * 4.525]))
        assert sample.targets.images.shape == (1, 3, 512, 640)


def test_training_split_of_the_folder_wins():
    dataset = DTUDataset(SCENES / "dtu", "train")
    assert dataset.scan_names == ["scan65"]
    assert len(dataset) == 49
