"""Procedural scenes: posed images with exact geometry, made to order on any device."""
