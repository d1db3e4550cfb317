"""Makes keras_2_models.zip, with Keras 2: ``pip install tensorflow==2.21.0 tf-keras==2.21.0`` in another environment.

    python make_keras_2_models.py keras_2_models.zip

It holds the same small model as a SavedModel and as HDF5, and ``answers.npz``: rows ``x`` and what Keras 2 computes of
them, ``y``; and a SavedModel of a subclassed model.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras


class Subclassed(keras.Model):
    """Not to be rebuilt from what is in a file."""

    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(2)

    def call(self, x):
        return self.inner(x)


archive = Path(sys.argv[1])
keras.utils.set_random_seed(1)
steps = keras.Input((6, 4), name="steps")
body = keras.Sequential([keras.layers.LSTM(3, return_sequences=True), keras.layers.BatchNormalization()], name="body")
attended = keras.layers.MultiHeadAttention(1, 2)(steps, value=steps)
folded = keras.layers.Reshape((3, 2, 4))(attended)
folded = keras.layers.DepthwiseConv2D(2, name="folded")(folded)
features = keras.layers.Concatenate()([keras.layers.Flatten()(body(steps)), keras.layers.Flatten()(folded)])
scores = keras.layers.Dense(3, name="scores", kernel_regularizer="l2")(features)
model = keras.Model(steps, scores)
model.compile(
    keras.optimizers.Adam(0.025),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
generator = np.random.default_rng(0)
x = generator.normal(size=(8, 6, 4)).astype("float32")
model.fit(x, generator.integers(0, 3, 8), epochs=3, verbose=0)
subclassed = Subclassed()
subclassed(x)
with tempfile.TemporaryDirectory() as folder:
    # Without traces and with a signature of one op: the graphs are not read, and large.
    signature = tf.function(lambda steps: {"same": steps}).get_concrete_function(tf.TensorSpec([None, 6, 4], name="x"))
    model.save(Path(folder, "saved_model"), save_traces=False, signatures=signature)
    subclassed.save(Path(folder, "subclassed"), save_traces=False, signatures=signature)
    model.save(Path(folder, "model.h5"))
    np.savez(Path(folder, "answers.npz"), x=x, y=model.predict(x, verbose=0))
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
