"""Reconstruction of photos or a video: rendered video, geometry and camera poses."""
