"""Reads data sets of `tf.data` and prints what was found, or what was said, as JSON: TensorFlow in its own process."""

from __future__ import annotations

import json

import numpy as np
import tensorflow as tf

from edgefl.errors import DataError
from edgefl_simulation.data import load_data

X = np.arange(50 * 4 * 3, dtype=np.float32).reshape(50, 4, 3)
Y = np.arange(50) % 3
ONE_HOT = np.eye(4, dtype=np.float32)[np.arange(50) % 4]
"""As many classes as a row of `X` is long: examples and batches of 4 look the same."""
IDS = [f"p{number % 4}" for number in range(50)]


def of(*arrays):
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


def ragged():
    signature = (tf.TensorSpec((None,), tf.float32), tf.TensorSpec((), tf.int32))
    return tf.data.Dataset.from_generator(lambda: ((np.zeros(n), 1) for n in (2, 3)), output_signature=signature)


GIVEN = {
    "examples": of(X, Y),
    "batches": of(X, Y).batch(16),
    "whole batches": of(X, Y).batch(16, drop_remainder=True).prefetch(2),
    "examples that look like batches": of(X, ONE_HOT),
    "batches that look like examples": of(X, ONE_HOT).batch(4, drop_remainder=True).map(lambda x, y: (x, y)),
    "batches undone": of(X, ONE_HOT).batch(5).unbatch(),
    "dict": of({"x": X, "y": Y, "id": IDS}).batch(7),
    "inputs by name": of({"a": X, "b": X[:, 0]}, Y).batch(7),
    "weights": of(X, Y, np.ones(50)),
    "endless": of(X, Y).repeat(),
    "inputs alone": of(X),
    "inputs without names": of((X, X), Y),
    "ragged": ragged(),
    "ragged tensors": of(tf.ragged.constant([[1.0], [1.0, 2.0]]), [0, 1]),
    "text": of(["a", "b"], [0, 1]),
    "nothing": of(X, Y).take(0),
}


def found(data):
    try:
        read = load_data(data)
    except DataError as error:
        return str(error)
    owners = None if read.owners is None else read.owner_names[read.owners].tolist()
    return {name: [list(array.shape), float(array.sum())] for name, array in read.arrays.items()} | (
        {} if owners is None else {"owners": owners}
    )


print(json.dumps({name: found(data) for name, data in GIVEN.items()}))  # noqa: T201
