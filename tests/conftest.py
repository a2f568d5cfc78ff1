"""What all tests share; each module of ``tests/fixtures`` says what it provides."""

pytest_plugins = ["dtu_layout", "centered_scene", "colmap_layout", "scene_layouts", "tiny_models"]
