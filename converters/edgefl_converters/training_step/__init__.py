"""Says what a training step is, from a compiled model to traced graphs: come here to change what is trained and how."""
