"""Cameras, rays, configuration, checkpoints, metrics: what everything else stands on."""
