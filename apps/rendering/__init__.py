"""Free views of a scene: videos, geometry, and a viewer."""
