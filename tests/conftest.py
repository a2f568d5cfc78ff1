"""Fixtures that write one small, consistent scene in every layout that there is a reader for."""

from __future__ import annotations

import json
import struct
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


OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
FOCAL, HEIGHT, WIDTH = 96.0, 64, 80
BOUNDS = (300.0, 900.0)


@dataclass(frozen=True)
class TinyScene:
    """What is written; images of 80x64 with the principal point in the middle."""

    images: np.ndarray
    depths: np.ndarray
    w2c: np.ndarray

    @property
    def c2w(self) -> np.ndarray:
        return np.linalg.inv(self.w2c)

    def points(self, view: int) -> np.ndarray:
        """Every 8th pixel of a view, lifted into the world."""
        rows, columns = np.mgrid[4:HEIGHT:8, 4:WIDTH:8]
        depth = self.depths[view, rows, columns]
        x = (columns + 0.5 - WIDTH / 2) / FOCAL * depth
        y = (rows + 0.5 - HEIGHT / 2) / FOCAL * depth
        local = np.stack([x, y, depth, np.ones_like(depth)], -1).reshape(-1, 4)
        return (local @ self.c2w[view].T)[:, :3]


def save_images(folder: Path, scene: TinyScene, pattern: str = "{:03d}.png") -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [pattern.format(view) for view in range(len(scene.images))]
    for name, image in zip(names, scene.images, strict=True):
        Image.fromarray(image).save(folder / name)
    return names


def write_llff(root: Path, scene: TinyScene) -> None:
    save_images(root / "images", scene)
    c2w, rows = scene.c2w, []
    for pose in c2w:
        right, down, forward, center = pose[:3].T
        hwf = [HEIGHT, WIDTH, FOCAL]
        rows.append(
            np.concatenate([np.stack([down, right, -forward, center, hwf], 1).ravel(), BOUNDS])
        )
    np.save(root / "poses_bounds.npy", np.array(rows))


def frame(name: str, pose: np.ndarray) -> dict:
    return {"file_path": name, "transform_matrix": (pose @ OPENGL).tolist()}


def write_transforms(root: Path, scene: TinyScene) -> None:
    names = save_images(root / "images", scene)
    frames = [frame(f"images/{name}", pose) for name, pose in zip(names, scene.c2w, strict=True)]
    for view, depth in enumerate(scene.depths):
        np.save(root / f"{view}.npy", depth)
        frames[view]["depth_file_path"] = f"{view}.npy"
    content = {"fl_x": FOCAL, "near": BOUNDS[0], "far": BOUNDS[1], "frames": frames}
    content["depth_unit_scale_factor"] = 1.0
    (root / "transforms.json").write_text(json.dumps(content))


def write_blender(root: Path, scene: TinyScene) -> None:
    angle = 2 * np.arctan(WIDTH / 2 / FOCAL)
    parts = {"train": range(0, 5), "val": range(5, 6), "test": range(6, 8)}
    for split, views in parts.items():
        (root / split).mkdir(parents=True)
        frames = []
        for number, view in enumerate(views):
            alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
            alpha[:, :10] = 0
            image = np.concatenate([scene.images[view], alpha], -1)
            Image.fromarray(image).save(root / split / f"r_{number}.png")
            frames.append(frame(f"./{split}/r_{number}", scene.c2w[view]))
        content = {"camera_angle_x": angle, "frames": frames, "near": 300.0, "far": 900.0}
        (root / f"transforms_{split}.json").write_text(json.dumps(content))


def write_blendedmvs(root: Path, scene: TinyScene) -> None:
    save_images(root / "blended_images", scene, "{:08d}.jpg")
    save_images(root / "blended_images", scene, "{:08d}_masked.jpg")
    for folder in ("cams", "rendered_depth_maps"):
        (root / folder).mkdir()
    intrinsics = [[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1]]
    count = len(scene.images)
    pairs = [str(count)]
    for view in range(count):
        rows = ["extrinsic", *(" ".join(map(repr, row.tolist())) for row in scene.w2c[view]), ""]
        rows += ["intrinsic", *(" ".join(map(str, row)) for row in intrinsics), ""]
        rows += [f"{BOUNDS[0] + view} 5.0 128 {BOUNDS[1] + view}"]
        (root / "cams" / f"{view:08d}_cam.txt").write_text("\n".join(rows))
        write_pfm(root / "rendered_depth_maps" / f"{view:08d}.pfm", scene.depths[view])
        others = [other for other in reversed(range(count)) if other != view][:3]
        pairs += [str(view), " ".join(["3", *(f"{other} 10.5" for other in others)])]
    (root / "cams" / "pair.txt").write_text("\n".join(pairs))


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """The scalar first, by the eigenvector that the rotation's symmetric form has."""
    m = rotation
    form = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [0, m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [0, 0, m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1]],
            [0, 0, 0, m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    return np.linalg.eigh(form, UPLO="U")[1][:, -1]


def write_colmap(root: Path, scene: TinyScene, text: bool = False) -> None:
    """Points are those of the first view; every view sees them all but for its number of them."""
    names = save_images(root / "images", scene)
    model = root / "sparse" / "0"
    model.mkdir(parents=True)
    points = scene.points(0)
    poses = [(*quaternion(pose[:3, :3]), *pose[:3, 3]) for pose in scene.w2c]
    tracks = [[v for v in range(len(names)) if number >= v] for number in range(len(points))]
    parameters = (FOCAL, WIDTH / 2, HEIGHT / 2)
    writer = colmap_text if text else colmap_binary
    for role, content in writer(names, poses, parameters, points, tracks).items():
        (model / role).write_bytes(content)


def colmap_binary(names, poses, parameters, points, tracks) -> dict[str, bytes]:
    cameras = struct.pack("<QIiQQ3d", 1, 1, 0, WIDTH, HEIGHT, *parameters)
    images = struct.pack("<Q", len(names))
    # Numbers run against the order of names.
    for view, name in enumerate(names):
        images += struct.pack("<I7dI", 100 - view, *poses[view], 1) + name.encode() + b"\0"
        seen = [number for number, track in enumerate(tracks) if view in track]
        images += struct.pack("<Q", len(seen))
        images += b"".join(struct.pack("<ddQ", 4.0, 5.0, number) for number in seen)
    body = struct.pack("<Q", len(points))
    for number, (point, track) in enumerate(zip(points, tracks, strict=True)):
        body += struct.pack("<Q3d3BdQ", number, *point, 1, 2, 3, 0.5, len(track))
        # A view that saw this point saw all that are numbered from the view's own number on.
        body += b"".join(struct.pack("<II", 100 - view, number - view) for view in track)
    return {"cameras.bin": cameras, "images.bin": images, "points3D.bin": body}


def colmap_text(names, poses, parameters, points, tracks) -> dict[str, bytes]:
    def line(*values) -> str:
        return " ".join(map(str, values)) + "\n"

    cameras = "# cameras\n" + line(1, "SIMPLE_PINHOLE", WIDTH, HEIGHT, *parameters)
    images, body = "# images\n", "# points\n"
    for view, name in enumerate(names):
        images += line(100 - view, *poses[view], 1, name) + ("\n" if view else "4.0 5.0 10\n")
    for number, (point, track) in enumerate(zip(points, tracks, strict=True)):
        body += line(number, *point, 1, 2, 3, 0.5, *(f"{100 - view} 0" for view in track))
    files = {"cameras.txt": cameras, "images.txt": images, "points3D.txt": body}
    return {name: content.encode() for name, content in files.items()}


WRITERS: dict[str, Callable[..., None]] = {
    "llff": write_llff,
    "transforms": write_transforms,
    "blender": write_blender,
    "blendedmvs": write_blendedmvs,
    "colmap": write_colmap,
}


@pytest.fixture(scope="session")
def centered_scene() -> TinyScene:
    scene = make_tiny_scene(1.0, (WIDTH / 2, HEIGHT / 2))
    return TinyScene(scene.images, scene.depths, scene.w2c)


@pytest.fixture(scope="session")
def write_layout(centered_scene: TinyScene) -> Callable[..., Path]:
    """``write_layout("colmap", root)`` writes the scene, and returns its folder."""

    def write(name: str, root: Path, images: np.ndarray | None = None, **options: object) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        scene = centered_scene if images is None else replace(centered_scene, images=images)
        WRITERS[name](root, scene, **options)
        return root

    return write


@pytest.fixture(scope="session")
def centered_dtu() -> Callable[[Path, np.ndarray, str], None]:
    """``centered_dtu(root, images, depth_line)`` writes the scene of ``write_layout`` as a scan."""

    def write(root: Path, images: np.ndarray, depth_line: str) -> None:
        scene = replace(make_tiny_scene(1.0, (WIDTH / 2, HEIGHT / 2)), images=images)
        _write_scene(root, "scan1", scene, depth_line=depth_line)
        _write_lists(root, {"test": ["scan1"]})

    return write


@pytest.fixture(scope="session")
def colmap_quaternion() -> Callable[[np.ndarray], np.ndarray]:
    """From a rotation to COLMAP's four numbers."""
    return quaternion
