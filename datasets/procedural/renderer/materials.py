"""Materials as the renderer takes them: colours, a pattern and how the surface reflects light."""

from __future__ import annotations

from dataclasses import dataclass, fields

from datasets.procedural.renderer.patterns import PATTERNS

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """Colours as a screen shows them; frequencies in periods per world unit."""

    first: Colour = (0.5, 0.5, 0.5)
    second: Colour | None = None
    """The colours of the pattern; absent ones repeat the one before."""
    third: Colour | None = None
    pattern: str = "plain"
    frequency: float = 4.0
    aspect: float = 1.0
    """Width of a pattern's cell by its height."""
    detail: float = 0.1
    """The pattern's own parameter: width of mortar, share of dots, warp of rings."""
    noise: float = 0.05
    """Strength of the multi-octave variation of brightness."""
    noise_frequency: float = 3.0
    bump: float = 0.0
    """Strength of the relief, seen in the shading only."""
    gloss: float = 0.0
    """Strength of the highlights."""
    sharpness: float = 30.0
    """Exponent of the highlights."""
    reflection: float = 0.0
    """Share of the backdrop that is mirrored head-on; more at grazing angles."""
    emission: float = 0.0
    """Light of its own, times the colour."""
    seed: float = 0.0
    """Decides the pattern's random features, and which photograph is shown."""
    turn: float = 0.0
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
