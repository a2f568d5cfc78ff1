"""Materials and photographs, and what surfaces look like where a ray has hit."""

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
from datasets.procedural.renderer.patterns import PATTERN_CODE, PATTERNS, Layers, Place, octaves
from utils.errors import UserError

SIDE, LEVELS = 256, 5
"""Side to which photographs are brought, cut square, and copies, each half as wide as the last."""
_MOST = 256
"""So many photographs are read at most."""

Number = float | int
Colour = tuple[Number, Number, Number]


@dataclass(frozen=True)
class Material:
    """Colours as a screen shows them; frequencies in periods per world unit."""

    first: Colour = (0.5, 0.5, 0.5)
    second: Colour | None = None
    """The colours of the pattern; absent ones repeat the one before."""
    third: Colour | None = None
    pattern: str = "plain"
    frequency: Number = 4.0
    aspect: Number = 1.0
    """Width of a pattern's cell by its height."""
    detail: Number = 0.1
    """The pattern's own parameter: width of mortar, share of dots, warp of rings."""
    noise: Number = 0.05
    """Strength of the multi-octave variation of brightness."""
    noise_frequency: Number = 3.0
    bump: Number = 0.0
    """Strength of the relief, seen in the shading only."""
    gloss: Number = 0.0
    sharpness: Number = 30.0
    """Strength and exponent of the highlights."""
    reflection: Number = 0.0
    """Share of the backdrop that is mirrored head-on; more at grazing angles."""
    emission: Number = 0.0
    """Light of its own, times the colour."""
    seed: Number = 0.0
    """Decides the pattern's random features, and which photograph is shown."""
    turn: Number = 0.0
    """Angle by which the pattern is turned on its surface."""

    def row(self) -> list[float]:
        """Lay the material out for the renderer: linear colours, pattern, all other values."""
        second = self.second or self.first
        colours = (self.first, second, self.third or second)
        values = [value for colour in colours for value in linear(colour)]
        values.append(float(PATTERNS.index(self.pattern)))
        return values + [float(getattr(self, name)) for name in list(COLUMN)[1:]]


_NAMES = [field.name for field in fields(Material)]
COLUMN = {name: 9 + index for index, name in enumerate(_NAMES[_NAMES.index("pattern") :])}
"""Place of each value in a material's row, behind three linear colours."""
MATERIAL_VALUES = 9 + len(COLUMN)


def linear(colour: Colour) -> Colour:
    """Turn a screen colour into light."""
    red, green, blue = (max(channel, 0.0) ** 2.2 for channel in colour)
    return red, green, blue


def surface_coordinates(
    solid: Vectors, normal: Vectors, wrap: Values, turn: Values
) -> tuple[Values, Values]:
    """Map a surface flat: along the axis it faces most, or rolled around its z axis."""
    x, y, z = solid.unbind(-1)
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
    solid: Vectors,
    normal: Vectors,
    wrap: Values,
    footprint: Values,
    material: Float[Tensor, "scene ray value"],
    photos: Float[Tensor, "photo texel 3"] | None = None,
) -> tuple[Vectors, Vectors]:
    """Evaluate materials at hits: albedo and gradient of the relief, in the surface's frame."""
    value = {name: material[..., index] for name, index in COLUMN.items()}
    seed = value["seed"].to(torch.int32)
    u, v = surface_coordinates(solid, normal, wrap, value["turn"])
    scale, frequency = value["noise_frequency"], value["frequency"]
    cloud, slope = octaves(solid * scale[..., None], seed, footprint * scale)
    u, v, height, width = (frequency * length for length in (u, v, solid[..., 2], footprint))
    aspect, detail = value["aspect"].clamp_min(0.1), value["detail"]
    place = Place(u, v, height, width, cloud, seed, aspect, detail)
    blend, accent = _pick_pattern(place, value["pattern"])
    first, second, third = material[..., 0:3], material[..., 3:6], material[..., 6:9]
    albedo = first + blend[..., None] * (second - first)
    albedo = albedo + accent[..., None] * (third - albedo)
    if photos is not None:
        shown = photo_colour(photos, seed.long(), place.u, place.v, place.footprint)
        is_photo = value["pattern"] == PATTERNS.index("photo")
        albedo = torch.where(is_photo[..., None], shown, albedo)
    albedo = albedo * (1 + value["noise"] * cloud).clamp_min(0.1)[..., None]
    # The relief's slope per world unit would grow with frequency; its look should not.
    return albedo.clamp(0.005, 0.95), value["bump"][..., None] * slope


def _pick_pattern(place: Place, index: Values) -> Layers:
    blend, accent = torch.zeros_like(place.u), torch.zeros_like(place.u)
    for number, name in enumerate(PATTERNS[1:], start=1):
        chosen = index == number
        if kernels.on_host(chosen) and not bool(chosen.any()):
            continue
        layers = PATTERN_CODE[name](place)
        blend = torch.where(chosen, layers[0], blend)
        accent = torch.where(chosen, layers[1], accent)
    return blend, accent


def load_photos(folder: Path | str) -> Float[Tensor, "photo texel 3"]:
    """Read the photographs of a folder as linear light, all levels of each in one row."""
    folder = Path(folder)
    kinds = {".jpg", ".jpeg", ".png"}
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in kinds]
    if not files:
        raise UserError(f"{folder}: no JPEG or PNG photographs here (texture_folder).")
    return torch.stack([_levels(path) for path in files[:_MOST]])


def _levels(path: Path) -> Float[Tensor, "texel 3"]:
    image = torch.from_numpy(read_image(path, min_size=(SIDE, SIDE)))
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = image[top : top + side, left : left + side].permute(2, 0, 1)[None] ** 2.2
    level = F.interpolate(square, (SIDE, SIDE), mode="bilinear", antialias=True)
    rows = []
    for _ in range(LEVELS):
        rows.append(level[0].permute(1, 2, 0).reshape(-1, 3))
        level = F.avg_pool2d(level, 2)
    return torch.cat(rows)


def photo_colour(
    photos: Float[Tensor, "photo texel 3"], which: Numbers, u: Values, v: Values, footprint: Values
) -> Vectors:
    """Look photographs up, bilinearly in the level that goes with the pixel's footprint."""
    level = (footprint * SIDE).clamp_min(1).log2().round().clamp(0, LEVELS - 1).long()
    side = SIDE >> level
    # Levels lie one after the other: the geometric series of their areas.
    start = (SIDE * SIDE - side * side) * 4 // 3 + which.remainder(len(photos)) * photos.shape[1]
    # One photograph fills one period; every other one is mirrored, so that there is no seam.
    x, y = ((1 - (place.remainder(2) - 1).abs()) * side - 0.5 for place in (u, v))
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
