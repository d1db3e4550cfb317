"""What of Keras is computed another way while a model is traced: come here to give a layer a better gradient."""
