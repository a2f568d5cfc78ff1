"""COLMAP's camera models as lenses that OpenCV can undo."""

from __future__ import annotations

from datasets.formats.checks import check_pinhole
from datasets.formats.colmap_model import ColmapCamera
from datasets.formats.lenses import Lens
from datasets.formats.options import Size
from utils.errors import UserError

_MAX_ROUNDING = 2.0
"""Pixels by which the sides of a shrunk photo may be rounded, together."""
_FISHEYES = ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", *_FISHEYES[1:])
_UNSUPPORTED = ("FOV", "THIN_PRISM_FISHEYE")


def image_lens(camera: ColmapCamera, size: Size, source: str) -> Lens:
    """Return the lens of a photo, which may be a shrunk copy of what COLMAP saw.

    Args:
        camera: As the model has it.
        size: Height and width of the photo.
        source: The file and camera, to begin error messages.
    """
    if camera.model in _UNSUPPORTED:
        raise UserError(
            f"{source}: camera model {camera.model} is not supported. Undistort the photos with "
            "COLMAP's image_undistorter and use its result."
        )
    _check_shape(camera, size, source)
    scale = size[1] / camera.width, size[0] / camera.height
    focals = 1 if camera.model in _ONE_FOCAL else 2
    focal_x, focal_y = camera.parameters[0], camera.parameters[focals - 1]
    center_x, center_y = camera.parameters[focals : focals + 2]
    full_size = camera.height, camera.width
    check_pinhole((focal_x, focal_y), (center_x, center_y), full_size, source)
    return Lens(
        "fisheye" if camera.model in _FISHEYES else "perspective",
        (focal_x * scale[0], focal_y * scale[1]),
        (center_x * scale[0], center_y * scale[1]),
        _coefficients(camera.model, camera.parameters[focals + 2 :]),
    )


def _coefficients(model: str, numbers: tuple[float, ...]) -> tuple[float, ...]:
    """Bring COLMAP's coefficients into OpenCV's order: k1 k2 p1 p2 k3 k4 k5 k6, or k1 to k4."""
    if model in _FISHEYES:
        return (*numbers, 0.0, 0.0, 0.0, 0.0)[:4]
    if model in ("SIMPLE_RADIAL", "RADIAL"):
        return (*numbers, 0.0)[:2] + (0.0, 0.0, 0.0)
    if model == "OPENCV":
        return (*numbers, 0.0)
    return numbers or (0.0,) * 5


def _check_shape(camera: ColmapCamera, size: Size, source: str) -> None:
    if min(camera.width, camera.height) < 1:
        raise UserError(f"{source}: an image of {camera.width}x{camera.height} is none.")
    if abs(size[0] - camera.height * size[1] / camera.width) <= _MAX_ROUNDING:
        return
    turned = abs(size[1] - camera.height * size[0] / camera.width) <= _MAX_ROUNDING
    advice = "It is turned: undo the rotation." if turned else "Is it cropped, or another photo?"
    raise UserError(
        f"{source}: belongs to images of {camera.width}x{camera.height} or a fraction of that, "
        f"but the photo is {size[1]}x{size[0]}. {advice}"
    )
