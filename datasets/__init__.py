"""Posed images: the containers that the model reads and one reader per format."""
