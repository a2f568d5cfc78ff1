"""One scene, written in every layout that there is a reader for."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.pfm import write_pfm

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
        images += struct.pack("<QddQ", 1, 4.0, 5.0, 10)
    body = struct.pack("<Q", len(points))
    for number, (point, track) in enumerate(zip(points, tracks, strict=True)):
        body += struct.pack("<Q3d3BdQ", number, *point, 1, 2, 3, 0.5, len(track))
        body += b"".join(struct.pack("<II", 100 - view, 0) for view in track)
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
def centered_scene(make_scene) -> TinyScene:
    scene = make_scene(1.0, (WIDTH / 2, HEIGHT / 2))
    return TinyScene(scene.images, scene.depths, scene.w2c)


@pytest.fixture(scope="session")
def write_layout(centered_scene: TinyScene) -> Callable[..., Path]:
    """``write_layout("colmap", root)`` writes the scene, and returns its folder."""

    def write(name: str, root: Path, **options: object) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        WRITERS[name](root, centered_scene, **options)
        return root

    return write
