"""Table of the scene formats.

A format is an entry of ``FORMATS`` and a reader, ``read_scene(folder, options)`` in a module that
is imported when a scene is opened: this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from datasets.formats.splits import Split
from datasets.scene_cache import CAMERAS_NAME, ESTIMATED

PoseConvention = Literal["opengl", "llff", "opencv", "opencv_c2w"]


@dataclass(frozen=True)
class SceneFormat:
    """A scene format."""

    reader: str
    """Module in ``datasets.formats`` and function, as ``module.function``."""
    markers: tuple[str, ...]
    """Glob patterns of files by which a folder is recognised as a scene."""
    poses: PoseConvention
    """How files write poses: camera-to-world with OpenGL or LLFF axes, or OpenCV's world-to-camera
    or camera-to-world."""
    default_lists: Mapping[Split, str] = field(default_factory=dict)
    """Scene lists in ``configs/lists`` for data sets without lists of their own."""
    shares_cameras: bool = False
    """Whether scenes are scans in one folder with common cameras, as in DTU."""


FORMATS: dict[str, SceneFormat] = {
    "dtu": SceneFormat(
        "dtu.read_scene",
        ("Cameras",),
        "opencv",
        default_lists={
            "train": "dtu_train_88.txt",
            "val": "dtu_test_16.txt",
            "test": "dtu_test_16.txt",
        },
        shares_cameras=True,
    ),
    "llff": SceneFormat("llff.read_scene", ("poses_bounds.npy",), "llff"),
    "blender": SceneFormat("blender.read_scene", ("transforms_train.json",), "opengl"),
    "transforms": SceneFormat("transforms.read_scene", ("transforms.json",), "opengl"),
    "colmap": SceneFormat(
        "colmap.reader.read_scene",
        (
            *("sparse/[0-9]*/cameras.bin", "sparse/[0-9]*/cameras.txt"),
            *("sparse/cameras.bin", "sparse/cameras.txt", "colmap/sparse/[0-9]*/cameras.bin"),
            *("distorted/sparse/[0-9]*/cameras.bin", "colmap_sparse/[0-9]*/cameras.bin"),
            *("sparse_text/cameras.txt", "colmap_text/cameras.txt"),
            *("dense/[0-9]*/sparse/cameras.bin", "dslr_calibration_undistorted/cameras.*"),
        ),
        "opencv",
    ),
    "blendedmvs": SceneFormat("blendedmvs.read_scene", ("cams",), "opencv"),
    "sdfstudio": SceneFormat("research_scenes.read_sdfstudio", ("meta_data.json",), "opencv_c2w"),
    "nsvf": SceneFormat("research_scenes.read_nsvf", ("pose/[012]_*.txt",), "opencv_c2w"),
    "neus": SceneFormat(
        "research_scenes.read_neus", ("cameras_sphere.npz", "cameras.npz"), "opencv"
    ),
    "nerfies": SceneFormat("research_scenes.read_nerfies", ("camera/*.json",), "opencv"),
    "bundler": SceneFormat(
        "reconstructions.read_bundler", ("bundle*.out", "bundle/bundle.out"), "opengl"
    ),
    "meshroom": SceneFormat(
        "reconstructions.read_meshroom", ("cameras.sfm", "sfm.sfm", "sfm.json"), "opencv_c2w"
    ),
    "scannet": SceneFormat(
        "captures.read_scannet", ("intrinsic/intrinsic_color.txt",), "opencv_c2w"
    ),
    "seven_scenes": SceneFormat("captures.read_seven_scenes", ("frame-*.pose.txt",), "opencv_c2w"),
    "polycam": SceneFormat(
        "captures.read_polycam",
        ("keyframes/corrected_cameras/*.json", "keyframes/cameras/*.json"),
        "opengl",
    ),
    "record3d": SceneFormat(
        "captures.read_record3d", ("EXR_RGBD/metadata.json", "rgbd/*.jpg"), "opengl"
    ),
    "shards": SceneFormat("shards.read_scene", ("shard.json",), "opencv_c2w"),
    "photos": SceneFormat(
        "transforms.read_scene", (f"{ESTIMATED}/{CAMERAS_NAME}", CAMERAS_NAME), "opengl"
    ),
}
