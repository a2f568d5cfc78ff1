"""Applications of the model: inspection, rendering, viewer, exports, conversions."""
