"""Reads what Keras 2 (tf.keras before TensorFlow 2.16, and tf_keras) wrote of models: configuration and weights."""
