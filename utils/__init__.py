"""Cameras, settings, files, figures and devices: shared by all other packages."""
