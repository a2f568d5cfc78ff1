"""The backbone, the radiance field and their training modules."""
