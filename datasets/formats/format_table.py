"""The formats of scenes by name.

A format is a row of ``FORMATS`` and a module with ``read_scene(folder, options)``, imported when a
scene is opened: this module does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from datasets.formats.scene_lists import Split
from datasets.scene_cache import CAMERAS_NAME, ESTIMATED

PoseConvention = Literal["opengl", "llff", "opencv", "opencv_c2w"]


@dataclass(frozen=True)
class SceneFormat:
    """One format."""

    module: str
    """In ``datasets.formats``."""
    markers: tuple[str, ...]
    """Files by which a folder is known as a scene; patterns as ``glob`` has them."""
    poses: PoseConvention
    """How its files write poses: camera-to-world of OpenGL or LLFF, or OpenCV's world-to-camera or
    camera-to-world."""
    reader: str = "read_scene"
    """The function of the module."""
    default_lists: tuple[tuple[Split, str], ...] = ()
    """Lists in ``configs/lists`` for data sets that have none of their own."""
    shares_cameras: bool = False
    """Whether scenes are named parts of one folder with common cameras, as DTU's scans are."""


FORMATS: dict[str, SceneFormat] = {
    "dtu": SceneFormat(
        *("dtu", ("Cameras",), "opencv"),
        default_lists=(
            ("train", "dtu_train_88.txt"),
            ("val", "dtu_test_16.txt"),
            ("test", "dtu_test_16.txt"),
        ),
        shares_cameras=True,
    ),
    "llff": SceneFormat("llff", ("poses_bounds.npy",), "llff"),
    "blender": SceneFormat("blender", ("transforms_train.json",), "opengl"),
    "transforms": SceneFormat("transforms", ("transforms.json",), "opengl"),
    "colmap": SceneFormat(
        "colmap",
        (
            *("sparse/[0-9]*/cameras.bin", "sparse/[0-9]*/cameras.txt"),
            *("sparse/cameras.bin", "sparse/cameras.txt", "colmap/sparse/[0-9]*/cameras.bin"),
            *("distorted/sparse/[0-9]*/cameras.bin", "colmap_sparse/[0-9]*/cameras.bin"),
            *("sparse_text/cameras.txt", "colmap_text/cameras.txt"),
            *("dense/[0-9]*/sparse/cameras.bin", "dslr_calibration_undistorted/cameras.*"),
        ),
        "opencv",
    ),
    "blendedmvs": SceneFormat("blendedmvs", ("cams",), "opencv"),
    "sdfstudio": SceneFormat(
        "research_scenes", ("meta_data.json",), "opencv_c2w", "read_sdfstudio"
    ),
    "nsvf": SceneFormat("research_scenes", ("pose/[012]_*.txt",), "opencv_c2w", "read_nsvf"),
    "neus": SceneFormat(
        "research_scenes", ("cameras_sphere.npz", "cameras.npz"), "opencv", "read_neus"
    ),
    "nerfies": SceneFormat("research_scenes", ("camera/*.json",), "opencv", "read_nerfies"),
    "bundler": SceneFormat(
        *("reconstructions", ("bundle*.out", "bundle/bundle.out"), "opengl", "read_bundler"),
    ),
    "meshroom": SceneFormat(
        "reconstructions",
        ("cameras.sfm", "sfm.sfm", "sfm.json"),
        "opencv_c2w",
        "read_meshroom",
    ),
    "scannet": SceneFormat(
        *("rgbd_scans", ("intrinsic/intrinsic_color.txt",), "opencv_c2w", "read_scannet"),
    ),
    "seven_scenes": SceneFormat(
        *("rgbd_scans", ("frame-*.pose.txt",), "opencv_c2w", "read_seven_scenes"),
    ),
    "polycam": SceneFormat(
        "phone_captures",
        ("keyframes/corrected_cameras/*.json", "keyframes/cameras/*.json"),
        "opengl",
        "read_polycam",
    ),
    "record3d": SceneFormat(
        *("phone_captures", ("EXR_RGBD/metadata.json", "rgbd/*.jpg"), "opengl", "read_record3d"),
    ),
    "shards": SceneFormat("shards", ("shard.json",), "opencv_c2w"),
    "photos": SceneFormat("transforms", (f"{ESTIMATED}/{CAMERAS_NAME}", CAMERAS_NAME), "opengl"),
}
