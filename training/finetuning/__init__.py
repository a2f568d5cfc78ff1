"""Fine-tuning of a single scene."""
