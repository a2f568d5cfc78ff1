"""COLMAP scenes: the sparse model, its photos and the reader."""
