"""VGGT, the geometry backbone."""
