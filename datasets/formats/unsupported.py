"""Recognition of other programs' layouts that are not read, with the way to convert each."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from datasets.formats.images.image_files import list_images

_HEAD_BYTES = 4096
_COLMAP = (
    "let COLMAP find the cameras: python -m apps.estimate_cameras --method colmap --photos {images}"
)
_ESTIMATE = f"Convert it: {_COLMAP}"
_NERFSTUDIO = (
    "Convert it: ns-process-data {command} --output-dir {{out}} (pip install nerfstudio), then "
    "read {{out}}"
)
_COPY = "Copy its cameras to where they are looked for: cp {{file}} {{folder}}/{name}"


@dataclass(frozen=True)
class UnsupportedLayout:
    """The layout of a program, and how to convert it."""

    program: str
    markers: tuple[str, ...]
    """Glob patterns, each of which must match a file or folder."""
    remedy: str
    """A template with ``{folder}``, ``{file}`` (the match of the first marker), ``{images}`` and
    ``{out}``."""
    head: str = ""
    """Text near the beginning of ``{file}``."""


_LAYOUTS = (
    UnsupportedLayout(
        "Metashape",
        ("*.xml",),
        _NERFSTUDIO.format(command="metashape --data {images} --xml {file}"),
        head="<chunk",
    ),
    UnsupportedLayout(
        "RealityCapture",
        ("*.csv",),
        _NERFSTUDIO.format(command="realitycapture --data {images} --csv {file}"),
        head="#name,x,y,alt,heading,pitch,roll,f,",
    ),
    UnsupportedLayout(
        "RealityCapture",
        ("*.csv",),
        "Export again: Alignment > Registration > Internal/External camera parameters, since this "
        f"file lacks focal lengths; or {_COLMAP}",
        head="#name,x,y,alt",
    ),
    UnsupportedLayout("ContextCapture", ("*.xml",), _ESTIMATE, head="<BlocksExchange"),
    UnsupportedLayout(
        "OpenDroneMap",
        ("opensfm/reconstruction.json",),
        _NERFSTUDIO.format(command="odm --data {folder}"),
    ),
    UnsupportedLayout("OpenSfM", ("reconstruction.json",), _ESTIMATE),
    UnsupportedLayout("Meshroom", ("*.sfm",), _COPY.format(name="cameras.sfm")),
    UnsupportedLayout(
        "Meshroom",
        ("MeshroomCache/StructureFromMotion/*/*.sfm",),
        _COPY.format(name="cameras.sfm"),
    ),
    UnsupportedLayout("TUM RGB-D", ("rgb.txt", "groundtruth.txt"), _ESTIMATE),
    UnsupportedLayout("Replica", ("traj.txt", "results"), _ESTIMATE),
    UnsupportedLayout("OpenMVG", ("sfm_data.json",), _ESTIMATE),
    UnsupportedLayout("Bundler", ("*.out",), _COPY.format(name="bundle.out"), head="# Bundle file"),
    UnsupportedLayout("VisualSFM", ("*.nvm",), _ESTIMATE, head="NVM_V3"),
    UnsupportedLayout("Pix4D", ("*calibrated_camera_parameters.txt",), _ESTIMATE),
    UnsupportedLayout("Polycam", ("mesh_info.json", "keyframes/images"), _ESTIMATE),
    UnsupportedLayout("RealityCapture", ("*.xmp",), _ESTIMATE, head="xcr:"),
    UnsupportedLayout("RealityCapture", ("images/*.xmp",), _ESTIMATE, head="xcr:"),
    UnsupportedLayout(
        "Record3D",
        ("*.r3d",),
        "Unpack it: python -m zipfile -e {file} {out}, then read {out}",
    ),
    UnsupportedLayout(
        "Gaussian splatting's results",
        ("cfg_args", "cameras.json"),
        "Read the folder of photos that cfg_args names as source_path instead.",
    ),
)


def describe_unsupported(folder: Path) -> str | None:
    """Return an error text with the program that wrote a folder and a remedy, or None."""
    for layout in _LAYOUTS:
        # The newest of several matches is used.
        matches = [sorted(folder.glob(marker), key=_modified)[-1:] for marker in layout.markers]
        if not all(matches) or not _begins_with(matches[0][0], layout.head):
            continue
        file, out = matches[0][0], folder.with_name(f"{folder.resolve().name}_converted")
        candidates = [folder, *sorted(folder.glob("*/")), folder / "keyframes" / "images"]
        images = max(candidates, key=_count_images)
        paths = {"folder": folder, "file": file, "images": images, "out": out}
        quoted = {name: shlex.quote(str(path)) for name, path in paths.items()}
        return (
            f"{folder}: is a folder of {layout.program} ({file.name}), which is not read as it is. "
            + layout.remedy.format(**quoted)
        )
    return None


def _modified(path: Path) -> tuple[float, str]:
    return path.stat().st_mtime, path.name


def _count_images(folder: Path) -> int:
    return len(list_images(folder)) if folder.is_dir() else 0


def _begins_with(path: Path, head: str) -> bool:
    if not head:
        return True
    try:
        with path.open("rb") as file:
            return head.encode() in file.read(_HEAD_BYTES)
    except OSError:
        return False
