"""Judging a trained model on views that it was not shown."""
