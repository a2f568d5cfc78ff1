"""Scenes that can be rendered from any camera, and the estimation of missing cameras."""
