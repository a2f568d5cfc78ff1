import pytest


@pytest.fixture(scope="session")
def tiny_flags(tiny_dtu, tiny_backbone):
    """Command-line flags of a run that takes a second or two."""
    flags = {
        "datadir": tiny_dtu,
        "vggt_path": tiny_backbone,
        "random_backbone": "true",
        "backbone_size": 56,
        "feature_channels": 8,
        "coarse_channels": 8,
        "pyramid_width": 16,
        "field_width": 8,
        "similarity_groups": 2,
        "ray_heads": 2,
        "view_width": 8,
        "volume_channels": 2,
        "volume_groups": 2,
        "N_planes": 8,
        "N_samples": 4,
        "batch_size": 32,
        "num_workers": 0,
        "num_nearest": 4,
        "min_sources": 2,
        "max_sources": 3,
        "source_dropout": 0.3,
        "warmup_steps": 3,
        "batches_per_epoch": 5,
        "num_epochs": 3,
        "save_every": 2,
        "val_chunk": 2000,
        "accelerator": "cpu",
        "devices": 1,
    }
    widths = ["--volume_widths", "8", "8"]
    return widths + [text for name, value in flags.items() for text in (f"--{name}", str(value))]
