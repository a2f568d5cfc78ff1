"""Layouts of other programs that are recognised, to say how they become one that is read."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from datasets.formats.image_files import list_images

_HEAD_BYTES = 4096


@dataclass(frozen=True)
class ForeignLayout:
    """What a program writes, and the way out of it."""

    program: str
    markers: tuple[str, ...]
    """Patterns of files or folders, all of which are there."""
    remedy: str
    """``{folder}``, ``{file}`` (what the first marker found), ``{images}`` and ``{out}`` are put
    in."""
    head: str = ""
    """Text near the beginning of the file that the first marker found."""
    lead: str = "Convert it: "


_ESTIMATE = (
    "let COLMAP find the cameras: python -m apps.estimate_cameras --method colmap --photos {images}"
)
_COPY = "Copy its cameras to where they are looked for: "
_NERFSTUDIO = " (pip install nerfstudio), then read {out}"
LAYOUTS = (
    ForeignLayout(
        "Metashape",
        ("*.xml",),
        "ns-process-data metashape --data {images} --xml {file} --output-dir {out}" + _NERFSTUDIO,
        head="<chunk",
    ),
    ForeignLayout(
        "RealityCapture",
        ("*.csv",),
        "ns-process-data realitycapture --data {images} --csv {file} --output-dir {out}"
        + _NERFSTUDIO,
        head="#name,x,y,alt,heading,pitch,roll,f,",
    ),
    ForeignLayout(
        "RealityCapture",
        ("*.csv",),
        "Alignment > Registration > Internal/External camera parameters, since this file lacks "
        "focal lengths; or " + _ESTIMATE,
        head="#name,x,y,alt",
        lead="Export again: ",
    ),
    ForeignLayout("ContextCapture", ("*.xml",), _ESTIMATE, head="<BlocksExchange"),
    ForeignLayout(
        "OpenDroneMap",
        ("opensfm/reconstruction.json",),
        "ns-process-data odm --data {folder} --output-dir {out}" + _NERFSTUDIO,
    ),
    ForeignLayout("OpenSfM", ("reconstruction.json",), _ESTIMATE),
    *(
        ForeignLayout("Meshroom", (f"{place}*.sfm",), "cp {file} {folder}/cameras.sfm", lead=_COPY)
        for place in ("", "MeshroomCache/StructureFromMotion/*/")
    ),
    ForeignLayout("TUM RGB-D", ("rgb.txt", "groundtruth.txt"), _ESTIMATE),
    ForeignLayout("Replica", ("traj.txt", "results"), _ESTIMATE),
    ForeignLayout("OpenMVG", ("sfm_data.json",), _ESTIMATE),
    ForeignLayout(
        *("Bundler", ("*.out",), "cp {file} {folder}/bundle.out"), head="# Bundle file", lead=_COPY
    ),
    ForeignLayout("VisualSFM", ("*.nvm",), _ESTIMATE, head="NVM_V3"),
    ForeignLayout("Pix4D", ("*calibrated_camera_parameters.txt",), _ESTIMATE),
    ForeignLayout("Polycam", ("mesh_info.json", "keyframes/images"), _ESTIMATE),
    *(
        ForeignLayout("RealityCapture", (pattern,), _ESTIMATE, head="xcr:")
        for pattern in ("*.xmp", "images/*.xmp")
    ),
    ForeignLayout(
        "Record3D",
        ("*.r3d",),
        "python -m zipfile -e {file} {out}, then read {out}",
        lead="Unpack it: ",
    ),
    ForeignLayout(
        "Gaussian splatting's results",
        ("cfg_args", "cameras.json"),
        "Read the folder of photos that cfg_args names as source_path instead.",
        lead="",
    ),
)


def describe_foreign(folder: Path) -> str | None:
    """Return what another program's folder is and how to convert it, or None."""
    for layout in LAYOUTS:
        # Of several results the latest counts.
        found = [sorted(folder.glob(one), key=_modified)[-1:] for one in layout.markers]
        if not all(found) or not _begins_with(found[0][0], layout.head):
            continue
        first, out = found[0][0], folder.with_name(f"{folder.resolve().name}_converted")
        places = [folder, *sorted(folder.glob("*/")), folder / "keyframes" / "images"]
        images = max(places, key=_count_images)
        named = {"folder": folder, "file": first, "images": images, "out": out}
        quoted = {name: shlex.quote(str(path)) for name, path in named.items()}
        return (
            f"{folder}: is a folder of {layout.program} ({first.name}), which is not read as it "
            f"is. {layout.lead}{layout.remedy.format(**quoted)}"
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
