"""Materials, and the colours of surfaces at the hits of rays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from datasets.formats.images.decoding import read_image
from datasets.procedural.renderer import kernels
from datasets.procedural.renderer.geometry import Numbers, Values, Vectors
from datasets.procedural.renderer.patterns import (
    PATTERN_FUNCTIONS,
    PATTERNS,
    Layers,
    PatternInput,
    octaves,
)
from utils.errors import UserError

_SIDE, _LEVELS = 256, 5
"""Side of the square mip maps of photographs, and number of levels."""
_MAX_PHOTOS = 256

Number = float | int
Colour = tuple[Number, Number, Number]


@dataclass(frozen=True)
class Material:
    """A surface material: colours in display space, frequencies in periods per world unit."""

    first: Colour = (0.5, 0.5, 0.5)
    second: Colour | None = None
    """Colours of the pattern; None repeats the one before."""
    third: Colour | None = None
    pattern: str = "plain"
    frequency: Number = 4.0
    aspect: Number = 1.0
    """Width of a cell of the pattern relative to its height."""
    detail: Number = 0.1
    """Parameter of the pattern: width of mortar, share of dots, warp of rings."""
    noise: Number = 0.05
    """Amplitude of multi-octave brightness noise."""
    noise_frequency: Number = 3.0
    bump: Number = 0.0
    """Strength of the bump map, which affects shading only."""
    gloss: Number = 0.0
    sharpness: Number = 30.0
    """Strength and exponent of the highlights."""
    reflection: Number = 0.0
    """Reflectance of the backdrop at normal incidence; it is larger at grazing angles."""
    emission: Number = 0.0
    """Emitted light relative to the colour."""
    seed: Number = 0.0
    """Seed of the pattern, and index of the photograph."""
    turn: Number = 0.0
    """Rotation of the pattern on its surface in radians."""

    def row(self) -> list[float]:
        """Return the row for the renderer: linear colours, pattern, all other values."""
        second = self.second or self.first
        colours = (self.first, second, self.third or second)
        values = [value for colour in colours for value in linear(colour)]
        values.append(float(PATTERNS.index(self.pattern)))
        return values + [float(getattr(self, name)) for name in list(COLUMN)[1:]]


_NAMES = [field.name for field in fields(Material)]
COLUMN = {name: 9 + index for index, name in enumerate(_NAMES[_NAMES.index("pattern") :])}
"""Index of each value in a material's row, after three linear colours."""
MATERIAL_VALUES = 9 + len(COLUMN)


def linear(colour: Colour) -> Colour:
    """Convert a display colour to linear light."""
    red, green, blue = (max(channel, 0.0) ** 2.2 for channel in colour)
    return red, green, blue


def surface_coordinates(
    points: Vectors, normal: Vectors, wrap: Values, turn: Values
) -> tuple[Values, Values]:
    """Return texture coordinates: projected along the dominant axis, or cylindrical around z."""
    x, y, z = points.unbind(-1)
    facing = normal.abs()
    sideways = (facing[..., 2] < 0.7) & (wrap > 0)
    along_x = (facing[..., 0] > facing[..., 1]) & (facing[..., 0] >= facing[..., 2])
    along_y = (facing[..., 1] >= facing[..., 0]) & (facing[..., 1] >= facing[..., 2])
    u = torch.where(along_x, y, x)
    v = torch.where(along_x | along_y, -z, y)
    u = torch.where(sideways, torch.atan2(y, x) * wrap, u)
    v = torch.where(sideways, -z, v)
    cosine, sine = turn.cos(), turn.sin()
    return cosine * u - sine * v, sine * u + cosine * v


def surface_colour(
    points: Vectors,
    normal: Vectors,
    wrap: Values,
    footprint: Values,
    material: Float[Tensor, "scene ray value"],
    photos: Float[Tensor, "photo texel 3"] | None = None,
) -> tuple[Vectors, Vectors]:
    """Evaluate materials: albedo and gradient of the bump map, in the surface's frame."""
    value = {name: material[..., index] for name, index in COLUMN.items()}
    seed = value["seed"].to(torch.int32)
    u, v = surface_coordinates(points, normal, wrap, value["turn"])
    scale, frequency = value["noise_frequency"], value["frequency"]
    cloud, slope = octaves(points * scale[..., None], seed, footprint * scale)
    u, v, height, width = (frequency * length for length in (u, v, points[..., 2], footprint))
    aspect, detail = value["aspect"].clamp_min(0.1), value["detail"]
    coordinates = PatternInput(u, v, height, width, cloud, seed, aspect, detail)
    blend, accent = _evaluate_patterns(coordinates, value["pattern"])
    first, second, third = material[..., 0:3], material[..., 3:6], material[..., 6:9]
    albedo = first + blend[..., None] * (second - first)
    albedo = albedo + accent[..., None] * (third - albedo)
    if photos is not None:
        texels = photo_colour(photos, seed.long(), u, v, width)
        is_photo = value["pattern"] == PATTERNS.index("photo")
        albedo = torch.where(is_photo[..., None], texels, albedo)
    albedo = albedo * (1 + value["noise"] * cloud).clamp_min(0.1)[..., None]
    # The slope is not scaled by the noise frequency, so that bumps look equally strong at any.
    return albedo.clamp(0.005, 0.95), value["bump"][..., None] * slope


def _evaluate_patterns(coordinates: PatternInput, index: Values) -> Layers:
    blend, accent = torch.zeros_like(coordinates.u), torch.zeros_like(coordinates.u)
    for number, name in enumerate(PATTERNS[1:], start=1):
        chosen = index == number
        if kernels.on_host(chosen) and not bool(chosen.any()):
            continue
        layers = PATTERN_FUNCTIONS[name](coordinates)
        blend = torch.where(chosen, layers[0], blend)
        accent = torch.where(chosen, layers[1], accent)
    return blend, accent


def load_photos(folder: Path | str) -> Float[Tensor, "photo texel 3"]:
    """Read the photographs of a folder as linear mip maps, the levels of each in one row."""
    folder = Path(folder)
    suffixes = {".jpg", ".jpeg", ".png"}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in suffixes]
    if not files:
        raise UserError(f"{folder}: no JPEG or PNG photographs here (texture_folder).")
    return torch.stack([_mip_map(path) for path in files[:_MAX_PHOTOS]])


def _mip_map(path: Path) -> Float[Tensor, "texel 3"]:
    image = torch.from_numpy(read_image(path, min_size=(_SIDE, _SIDE)))
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side].permute(2, 0, 1)[None] ** 2.2
    level = F.interpolate(square, (_SIDE, _SIDE), mode="bilinear", antialias=True)
    rows = []
    for _ in range(_LEVELS):
        rows.append(level[0].permute(1, 2, 0).reshape(-1, 3))
        level = F.avg_pool2d(level, 2)
    return torch.cat(rows)


def photo_colour(
    photos: Float[Tensor, "photo texel 3"], which: Numbers, u: Values, v: Values, footprint: Values
) -> Vectors:
    """Sample photographs bilinearly in the mip level of the pixel's footprint."""
    level = (footprint * _SIDE).clamp_min(1).log2().round().clamp(0, _LEVELS - 1).long()
    side = _SIDE >> level
    # The offset of a level is a geometric series of the areas of the finer ones.
    start = (_SIDE * _SIDE - side * side) * 4 // 3 + which.remainder(len(photos)) * photos.shape[1]
    # One photograph fills one period; alternate periods are mirrored to avoid seams.
    x, y = ((1 - (w.remainder(2) - 1).abs()) * side - 0.5 for w in (u, v))
    column, row = x.floor(), y.floor()
    total = torch.zeros(*u.shape, 3, device=u.device)
    flat = photos.flatten(0, 1)
    for dx in (0, 1):
        for dy in (0, 1):
            i = (column.long() + dx).clamp_min(0).minimum(side - 1)
            j = (row.long() + dy).clamp_min(0).minimum(side - 1)
            weight = (1 - (x - column - dx).abs()) * (1 - (y - row - dy).abs())
            total = total + weight[..., None] * flat[start + j * side + i]
    return total
