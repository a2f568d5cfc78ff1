"""Reading and writing of checkpoints: general models, fine-tuned scenes, baselines."""
