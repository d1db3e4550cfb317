"""The program of the post "Introducing TensorFlow Federated" (Ingerman and Ostrowski 2019), on edgefl.

Only names are other ones: `tff.learning` is `edgefl.learning`, EMNIST is digits.py, and TensorFlow 2 has no
`tf.contrib`. In a checkout: python -m examples.tensorflow_federated_post.post
"""

import tensorflow as tf

from edgefl import learning
from examples.tensorflow_federated_post import digits

# Load simulation data.
source, _ = digits.load_data()


def client_data(n):
    dataset = source.create_tf_dataset_for_client(source.client_ids[n])
    return digits.keras_dataset_from_digits(dataset).repeat(10).batch(20)


# Pick a subset of client devices to participate in training.
train_data = [client_data(n) for n in range(3)]

# Grab a single batch of data, so that it is known what data looks like.
sample_batch = tf.nest.map_structure(lambda x: x.numpy(), next(iter(train_data[0])))


# Wrap a Keras model for use with edgefl.
def model_fn():
    return learning.from_compiled_keras_model(digits.create_simple_keras_model(), sample_batch)


# Simulate a few rounds of training with the selected client devices.
trainer = learning.build_federated_averaging_process(model_fn)
state = trainer.initialize()
for _ in range(5):
    state, metrics = trainer.next(state, train_data)
    print(metrics.loss)
