"""Other models to compare with, behind the same two verbs."""
