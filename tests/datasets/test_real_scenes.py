"""Readers and protocols on real photographs, where they lie beside the checkout."""

import json
import shutil
import struct

import numpy as np
import pytest
import torch
from reference_data import SCENES, needs

from apps.inspection.checks import check_scene
from apps.inspection.conventions import fit_pair, match_pair
from datasets.config import DataChoice
from datasets.formats.dtu import image_intrinsics
from datasets.formats.images.decoding import read_image
from datasets.formats.mvsnet_files import read_camera_file
from datasets.formats.options import ReadOptions
from datasets.formats.registry import open_scene
from datasets.protocols import (
    DTU_POOL,
    DTU_TARGETS,
    FERN_POOL,
    FERN_TARGETS,
    FOX_TARGETS,
    read_split,
    scene_tasks,
)
from evaluation.rendering import task_sample
from evaluation.scores import ViewImages, describe_region, view_scores
from utils.cameras import project

FERN, FOX, DTU = SCENES / "llff" / "fern", SCENES / "fox", SCENES / "dtu"
REFERENCE = SCENES / "mvsnerf_reference.json"
pytestmark = needs(FERN, FOX, DTU, REFERENCE)


@pytest.fixture(scope="module")
def fern():
    return open_scene("llff", FERN, ReadOptions((640, 960)))


@pytest.fixture(scope="module")
def fox():
    return open_scene("transforms", FOX, ReadOptions((640, 360)))


@pytest.mark.parametrize(
    ("name", "folder", "scene", "region", "tolerance"),
    [
        ("dtu", DTU / "scan65", "dtu_scan65", "full frame", 1e-3),
        ("dtu", DTU / "scan24", "dtu_scan24", "full frame", 1e-3),
        ("llff", FERN, "fern", "full frame, 10% border left out", 1e-3),
        # The lens was undone by other means there: 0.05 dB on average.
        ("auto", FOX, "fox", "full frame, 10% border left out", 0.25),
    ],
)
def test_protocols_are_those_of_an_independent_implementation(
    name, folder, scene, region, tolerance
):
    """The same targets and sources; the nearest source, shown as it is, scores as it did there."""
    reference = json.loads(REFERENCE.read_text())["scenes"][scene]["views"]
    (task,) = scene_tasks(DataChoice(dataset_name=name, datadir=str(folder)))
    assert list(task.targets) == [view["view"] for view in reference]
    assert [list(ids) for ids in task.sources] == [view["sources"] for view in reference]
    for place, view in enumerate(reference):
        sample = task_sample(task, place)
        flat, truth = torch.ones(sample.targets.size), sample.targets
        images = ViewImages(
            sample.sources.images[0], flat, flat, truth.images[0], truth.depths[0], truth.masks[0]
        )
        assert describe_region(images, task.region) == region
        score = view_scores(images, task.region)["psnr"]
        assert abs(score - view["copy_nearest_psnr"]) < tolerance
    if name == "dtu":
        torch.testing.assert_close(task.scene.near_far, torch.tensor([2.125, 1.5 * 4.525]))
        assert task.scene.image_size == (512, 640)


@pytest.mark.parametrize(
    ("folder", "train", "test"),
    [
        (DTU / "scan65", DTU_POOL, DTU_TARGETS),
        (FERN, FERN_POOL, FERN_TARGETS),
        (FOX, [v for v in range(50) if v % 8], range(0, 50, 8)),
    ],
)
def test_views_of_fine_tuning(folder, train, test):
    split = read_split(DataChoice(datadir=str(folder)), 4)
    assert sorted(split.pool) == sorted(train) and sorted(split.targets) == sorted(test)


def test_full_and_quarter_size_files_give_one_camera():
    for view in range(49):
        full, quarter = (
            image_intrinsics(read_camera_file(DTU / "Cameras" / name), (512, 640))
            for name in (f"{view:08d}_cam.txt", f"train/{view:08d}_cam.txt")
        )
        torch.testing.assert_close(full, quarter, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("name", "targets", "pool", "limit"),
    [("fern", FERN_TARGETS, FERN_POOL, 0.8), ("fox", FOX_TARGETS, range(50), 0.25)],
)
def test_matches_lie_on_epipolar_lines(request, name, targets, pool, limit):
    scene, distances = request.getfixturevalue(name), []
    for target in targets[:3]:
        views = scene.load_views([target, scene.nearest(target, pool, 1)[0]])
        matches = match_pair(views.images)
        assert matches.shape[1] > 200
        distances.append(fit_pair(matches, views.cameras).epipolar.median())
    assert torch.stack(distances).median() < limit


def test_sizes_ranges_and_distortion(fern, fox):
    torch.testing.assert_close(fern.near_far, torch.tensor([0.8 * 16.98530, 1.2 * 80.00210]))
    assert fern.image_size == (640, 960) and len(fern.view_ids) == 20
    views = fox.load_views([0, 25])
    share = views.masks.float().mean((1, 2))
    assert ((share > 0.97) & (share < 1)).all()
    assert views.masks[:, 64:-64, 36:-36].all()


def colmap_points(path):
    """Return positions, colours and for each the images (from 0) that see it."""
    data, place, points, colours, seen = path.read_bytes(), 8, [], [], []
    for _ in range(struct.unpack_from("<Q", data)[0]):
        _, *point, red, green, blue, _, length = struct.unpack_from("<QdddBBBdQ", data, place)
        track = struct.unpack_from(f"<{2 * length}I", data, place + 51)
        place += 51 + 8 * length
        points.append(point)
        colours.append((red, green, blue))
        seen.append({image - 1 for image in track[::2]})
    assert place == len(data)
    return torch.tensor(points), np.array(colours) / 255, seen


def test_fern_agrees_with_its_colmap_points():
    """Each view sees the points where COLMAP saw them: in the image, in colour, in its bounds."""
    scene = open_scene("llff", FERN)
    points, colours, seen = colmap_points(FERN / "sparse/0/points3D.bin")
    bounds = np.load(FERN / "poses_bounds.npy")[:, 15:]
    height, width = scene.image_size
    for view in (0, 7, 19):
        visible = [view in views for views in seen]
        pixels, depths = project(points[visible], scene.cameras[view])
        np.testing.assert_allclose(np.percentile(depths, [0.1, 99.9]), bounds[view], rtol=1e-4)
        columns, rows = pixels.long().unbind(-1)
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        assert inside.float().mean() > 0.995
        image = read_image(scene.read_view.photos[view].path)
        shown = image[rows[inside], columns[inside]]
        by_chance = image[rows[inside].flip(0), columns[inside].flip(0)]
        wanted = colours[visible][inside]
        assert np.abs(shown - wanted).mean() < 0.5 * np.abs(by_chance - wanted).mean()


def test_fern_by_two_readers(tmp_path, fern, colmap_quaternion):
    """COLMAP's cameras and points with the poses that LLFF copied from its images."""
    model = tmp_path / "fern" / "sparse" / "0"
    model.mkdir(parents=True)
    (tmp_path / "fern" / "images_4").symlink_to(FERN / "images_4")
    for name in ("cameras.bin", "points3D.bin"):
        shutil.copy(FERN / "sparse" / "0" / name, model / name)
    content = struct.pack("<Q", len(fern.view_ids))
    for view, w2c in enumerate(fern.cameras.w2c.double().numpy()):
        pose = [*colmap_quaternion(w2c[:3, :3]), *w2c[:3, 3]]
        content += struct.pack("<I7dI", view + 1, *pose, 1)
        content += fern.view_names[view].encode() + b"\0" + struct.pack("<Q", 0)
    (model / "images.bin").write_bytes(content)
    colmap = open_scene("colmap", tmp_path / "fern", ReadOptions((640, 960)))
    torch.testing.assert_close(colmap.near_far, fern.near_far, rtol=1e-5, atol=0)
    torch.testing.assert_close(colmap.cameras.c2w, fern.cameras.c2w, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(colmap.cameras.intrinsics, fern.cameras.intrinsics)
    # LLFF's file knows nothing of the lens, which bends the corners by some pixels.
    for scene in (colmap, fern):
        checks = check_scene(scene, 2, "opencv")
        assert not checks.problems and checks.pair is not None
