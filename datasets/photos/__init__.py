"""Photos and videos without cameras, and the cameras that are estimated for them."""
