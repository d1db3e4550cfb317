"""The program of the post "Introducing TensorFlow Federated" (2019), on edgefl."""
