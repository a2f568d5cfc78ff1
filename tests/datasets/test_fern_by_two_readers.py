"""LLFF's fern through its own file and through COLMAP's model, which lacks its images.bin."""

import shutil
import struct
from pathlib import Path

import pytest
import torch

from apps.inspection.checks import check_scene
from datasets.formats.colmap import read_colmap
from datasets.formats.llff import read_llff

FERN = Path(__file__).resolve().parents[2].parent / "shared" / "scenes" / "llff" / "fern"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not FERN.is_dir(), reason="no scenes beside the checkout"),
]


@pytest.fixture
def completed(tmp_path, colmap_quaternion):
    """COLMAP's cameras and points with the poses that LLFF copied from its images."""
    root, llff = tmp_path / "fern", read_llff(FERN)
    (root / "sparse" / "0").mkdir(parents=True)
    (root / "images_4").symlink_to(FERN / "images_4")
    for name in ("cameras.bin", "points3D.bin"):
        shutil.copy(FERN / "sparse" / "0" / name, root / "sparse" / "0" / name)
    content = struct.pack("<Q", len(llff.view_ids))
    for view, w2c in enumerate(llff.cameras.w2c.double().numpy()):
        pose = [*colmap_quaternion(w2c[:3, :3]), *w2c[:3, 3]]
        content += struct.pack("<I7dI", view + 1, *pose, 1)
        content += llff.view_names[view].encode() + b"\0" + struct.pack("<Q", 0)
    (root / "sparse" / "0" / "images.bin").write_bytes(content)
    return root


def test_cameras_and_range_are_the_same(completed):
    colmap, llff = read_colmap(completed, (640, 960)), read_llff(FERN)
    torch.testing.assert_close(colmap.near_far, llff.near_far, rtol=1e-5, atol=0)
    torch.testing.assert_close(colmap.cameras.c2w, llff.cameras.c2w, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(colmap.cameras.intrinsics, llff.cameras.intrinsics)


@pytest.mark.slow
def test_features_confirm_both(completed):
    # LLFF's file knows nothing of the lens, which bends the corners by some pixels.
    for scene in (read_colmap(completed, (640, 960)), read_llff(FERN)):
        checks = check_scene(scene, 2, "opencv")
        assert not checks.problems and checks.pair is not None
