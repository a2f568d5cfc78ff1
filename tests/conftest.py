"""Fixtures that write small folders in DTU layout: a real, consistent scene without a download."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.pfm import write_pfm

TINY_HEIGHT, TINY_WIDTH, TINY_VIEWS = 64, 80, 8
DISTANCE_MM = 580.0
SPHERE_RADIUS_MM = 90.0


@dataclass(frozen=True)
class DTUScene:
    """What ``write_dtu_scene`` writes: images with cameras as they stand in files."""

    images: np.ndarray
    """(view, height, width, 3), 8 bit."""
    file_intrinsics: np.ndarray
    """(3, 3), as the camera files are to have them."""
    w2c: np.ndarray
    """(view, 4, 4), millimetres."""
    depths: np.ndarray | None = None
    """(view, height, width), millimetres."""
    masks: np.ndarray | None = None
    """(view, height, width), 8 bit."""


@dataclass(frozen=True)
class DTUFolders:
    """Which variant of the layout to write."""

    cameras: str = "Cameras/train"
    images: str = "Rectified/{scan}_train"
    depths: str = "Depths/{scan}"
    lights: tuple[int, ...] = (3,)
    depth_line: str = "425.0 2.5"


def camera_text(w2c: np.ndarray, intrinsics: np.ndarray, depth_line: str = "425.0 2.5") -> str:
    def rows(matrix: np.ndarray) -> str:
        return "\n".join(" ".join(f"{value:.9g}" for value in row) for row in matrix)

    return f"extrinsic\n{rows(w2c)}\n\nintrinsic\n{rows(intrinsics)}\n\n{depth_line}\n"


def _write_scene(root: Path, scan: str, scene: DTUScene, **layout: object) -> None:
    folders = replace(DTUFolders(), **layout)
    image_dir = root / folders.images.format(scan=scan)
    depth_dir = root / folders.depths.format(scan=scan)
    camera_dir = root / folders.cameras
    for folder in (image_dir, depth_dir, camera_dir):
        folder.mkdir(parents=True, exist_ok=True)
    for view, image in enumerate(scene.images):
        for light in folders.lights:
            shaded = image if light == 3 else (image * (0.6 + 0.05 * light)).astype(np.uint8)
            Image.fromarray(shaded).save(image_dir / f"rect_{view + 1:03d}_{light}_r5000.png")
        text = camera_text(scene.w2c[view], scene.file_intrinsics, folders.depth_line)
        (camera_dir / f"{view:08d}_cam.txt").write_text(text)
        if scene.depths is not None:
            write_pfm(depth_dir / f"depth_map_{view:04d}.pfm", scene.depths[view])
        if scene.masks is not None:
            Image.fromarray(scene.masks[view]).save(depth_dir / f"depth_visual_{view:04d}.png")


def _write_lists(root: Path, splits: Mapping[str, list[str]]) -> None:
    (root / "lists").mkdir(parents=True, exist_ok=True)
    for split, scans in splits.items():
        (root / "lists" / f"{split}.txt").write_text("\n".join(scans) + "\n")


def _look_at_origin(azimuth: float, elevation: float) -> np.ndarray:
    """World-to-camera of a camera at ``DISTANCE_MM`` that looks at the origin; world z is up."""
    radial = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)]
    outward = np.array([*radial, np.sin(elevation)])
    forward = -outward
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    w2c = np.eye(4)
    w2c[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    w2c[:3, 3] = -w2c[:3, :3] @ (DISTANCE_MM * outward)
    return w2c


def _colour(points: np.ndarray, phase: float, is_sphere: np.ndarray) -> np.ndarray:
    """A smooth texture of the place in the world, so that every view sees the same."""
    x, y, z = np.moveaxis(points / 40.0, -1, 0)
    waves = np.stack([np.sin(x + phase), np.sin(y + 2 * phase), np.sin(x - y + z)], -1)
    mix = np.sin(2.3 * x + phase) * np.sin(2.1 * y - phase) * np.cos(2.7 * z)
    tint = np.where(is_sphere[..., None], [0.75, 0.45, 0.3], [0.35, 0.5, 0.6])
    return np.clip(tint + 0.16 * waves + 0.14 * mix[..., None], 0.0, 1.0)


def _render(w2c: np.ndarray, intrinsics: np.ndarray, phase: float) -> tuple[np.ndarray, np.ndarray]:
    """Trace a sphere on a plane: 8-bit image and z-depth in millimetres, house convention."""
    columns, rows = np.meshgrid(np.arange(TINY_WIDTH) + 0.5, np.arange(TINY_HEIGHT) + 0.5)
    pixels = np.stack([columns, rows, np.ones_like(columns)], -1)
    directions = pixels @ np.linalg.inv(intrinsics).T @ w2c[:3, :3]
    origin = -w2c[:3, :3].T @ w2c[:3, 3]
    center = np.array([30.0 * np.cos(phase), 30.0 * np.sin(phase), 10.0])
    to_plane = (-60.0 - origin[2]) / directions[..., 2]
    squared = (directions**2).sum(-1)
    half_b = directions @ (origin - center)
    discriminant = half_b**2 - squared * (((origin - center) ** 2).sum() - SPHERE_RADIUS_MM**2)
    to_sphere = (-half_b - np.sqrt(discriminant.clip(min=0))) / squared
    is_sphere = discriminant > 0
    depth = np.where(is_sphere, to_sphere, to_plane)
    colour = _colour(origin + depth[..., None] * directions, phase, is_sphere)
    return (colour * 255 + 0.5).astype(np.uint8), depth.astype(np.float32)


def make_tiny_scene(phase: float, center: tuple[float, float] = (41.0, 31.0)) -> DTUScene:
    """Eight views of a textured sphere on a textured plane, 80x64, with exact depth."""
    intrinsics = np.array([[96.0, 0.0, center[0]], [0.0, 96.0, center[1]], [0.0, 0.0, 1.0]])
    azimuths = 0.25 * (np.arange(TINY_VIEWS) % 4) - 0.375
    elevations = np.where(np.arange(TINY_VIEWS) < 4, 0.9, 1.15)
    w2c = np.stack([_look_at_origin(a, e) for a, e in zip(azimuths, elevations, strict=True)])
    images, depths = zip(*(_render(pose, intrinsics, phase) for pose in w2c), strict=True)
    quarter = intrinsics.copy()
    quarter[:2, 2] -= 0.25
    quarter[:2] /= 4.0
    return DTUScene(np.stack(images), quarter, w2c, np.stack(depths))


@pytest.fixture(scope="session")
def tiny_dtu(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder: scan1 and scan2, 8 views of 80x64, lights 2 and 3, depth, lists."""
    root = tmp_path_factory.mktemp("dtu")
    for number, scan in enumerate(("scan1", "scan2")):
        _write_scene(root, scan, make_tiny_scene(1.0 + number), lights=(2, 3))
    _write_lists(root, {"train": ["scan1", "scan2"], "val": ["scan2"], "test": ["scan2"]})
    return root


@pytest.fixture
def tiny_scene() -> DTUScene:
    """The scene of ``tiny_dtu``'s scan1, to be changed and written by a test."""
    return make_tiny_scene(1.0)


@pytest.fixture
def write_dtu_scene() -> Callable[..., None]:
    """``write_dtu_scene(root, scan, scene, **layout)``; the layout takes ``DTUFolders``' fields."""
    return _write_scene


@pytest.fixture
def write_dtu_lists() -> Callable[..., None]:
    """``write_dtu_lists(root, {"train": ["scan1"], ...})`` writes the data folder's own lists."""
    return _write_lists


@pytest.fixture(scope="session")
def make_scene() -> Callable[..., DTUScene]:
    """``make_tiny_scene``, for fixtures of other folders."""
    return make_tiny_scene
