"""Scenes that are rendered from any camera, from the source views nearest to it."""
