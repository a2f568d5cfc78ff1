"""From photos or a video to a moving picture, geometry and poses in one command."""
