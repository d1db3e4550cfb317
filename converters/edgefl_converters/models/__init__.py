"""Makes whatever people bring a compiled Keras model with stable names: come here to take one more kind of model."""
