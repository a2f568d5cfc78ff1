"""General training and fine-tuning: Lightning modules, losses, callbacks and checkpoints."""
