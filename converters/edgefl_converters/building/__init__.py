"""Leads from a compiled Keras model to the bytes of a model file: come here to change what a file holds."""
