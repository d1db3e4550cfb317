"""The post's program, changed only where TensorFlow Federated's names were: `tff.learning` is `edgefl.learning` here.

Run it from the repository: python -m examples.tensorflow_federated_post.post
"""

import tensorflow as tf

from edgefl import learning
from examples.tensorflow_federated_post import digits

# Load simulation data.
source = digits.load_source()


def client_data(n):
    return (
        source.create_tf_dataset_for_client(source.client_ids[n])
        .map(lambda e: {"x": tf.reshape(e["pixels"], [-1]), "y": e["label"]})
        .repeat(10)
        .batch(20)
    )


# Pick a subset of client devices to participate in training.
train_data = [client_data(n) for n in range(3)]

# Grab a single batch of data, so that it is known what data looks like.
sample_batch = tf.nest.map_structure(lambda x: x.numpy(), next(iter(train_data[0])))


# Wrap a Keras model for use with edgefl.
def model_fn():
    model = tf.keras.models.Sequential(
        [
            tf.keras.layers.Input((64,)),
            tf.keras.layers.Dense(10, tf.nn.softmax, kernel_initializer="zeros"),
        ]
    )
    model.compile(
        loss=tf.keras.losses.SparseCategoricalCrossentropy(),
        optimizer=tf.keras.optimizers.SGD(0.1),
        metrics=[tf.keras.metrics.SparseCategoricalAccuracy()],
    )
    return learning.from_compiled_keras_model(model, sample_batch)


# Simulate a few rounds of training with the selected client devices.
trainer = learning.build_federated_averaging_process(model_fn)
state = trainer.initialize()
for _ in range(5):
    state, metrics = trainer.next(state, train_data)
    print(metrics.loss)
