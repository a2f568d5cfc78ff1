"""A general model, made excellent on one scene."""
