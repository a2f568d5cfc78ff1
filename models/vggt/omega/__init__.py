"""The parts of VGGT-Omega that differ from VGGT."""
