"""Readers of posed scenes, one module a format, and what they share."""
