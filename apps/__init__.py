"""Programs beside the model: inspection, rendering, the viewer, exports, conversions."""
