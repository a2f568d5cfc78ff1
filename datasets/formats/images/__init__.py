"""Image files: finding, decoding, resizing, undistorting; photographs as views of a scene."""
