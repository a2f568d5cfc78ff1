"""Training of the small geometry backbone; the network itself is ``models.vggt``."""
