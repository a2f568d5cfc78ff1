"""VGGT and VGGT-Omega, the geometry backbones."""
