"""Training of the small geometry backbone, a ``models.vggt`` network."""
