"""Lightning modules, callbacks and what a training run is built from."""
