"""Gradients of activations, the error function and products against TensorFlow's own kernels."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from edgefl.inspecting.graph import read_graph
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build
from kernel_gradients import gradient_of

POINTS = np.concatenate(
    [
        np.linspace(-9, 9, 181),
        [-0.0, 0.0, 6.0, -6.0, 1e-6, -1e-6, 1e-30, -1e-30],
        np.random.default_rng(3).normal(size=91),
    ]
).astype(np.float32)


LARGE = np.array([50, 87, 88, 89, 90, 104, 1000, 1e5], np.float32)
"""From 89 on the exponential of a number is no float32."""

ACTIVATIONS = {
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "leaky": lambda x: tf.nn.leaky_relu(x, alpha=0.3),
    "leaky steep": lambda x: tf.nn.leaky_relu(x, alpha=0.0),
    "elu": tf.nn.elu,
    "selu": tf.nn.selu,
    "softplus": tf.nn.softplus,
    "softsign": tf.nn.softsign,
    "exact gelu": lambda x: tf.nn.gelu(x, approximate=False),
    "erf": tf.math.erf,
    "erfc": tf.math.erfc,
}


def test_gradients_of_activations_equal_the_kernels(kernel_parity):
    for name, activation in ACTIVATIONS.items():
        slopes = np.linspace(-2, 3, POINTS.size).astype(np.float32)
        kernel_parity.add(f"{name} forward", activation, POINTS)
        kernel_parity.add(f"{name} gradient", gradient_of(activation), POINTS, slopes)
    kernel_parity.check()


def test_activations_of_large_numbers_equal_the_kernels(kernel_parity):
    others = {
        "sigmoid": tf.nn.sigmoid,
        "log sigmoid": tf.math.log_sigmoid,
        "tanh": tf.nn.tanh,
        "swish": tf.nn.silu,
        "mish": keras.activations.mish,
        "gelu": keras.activations.gelu,
        "celu": keras.activations.celu,
        "hard swish": keras.activations.hard_swish,
    }
    for name, activation in {**ACTIVATIONS, **others}.items():
        for sign, given in ("+", LARGE), ("-", -LARGE):
            kernel_parity.add(f"{name} {sign} forward", activation, given)
            kernel_parity.add(f"{name} {sign} gradient", gradient_of(activation), given, np.ones_like(given))
    kernel_parity.check()


def test_where_a_rectified_value_is_above_zero_is_one_op():
    model = keras.Sequential([keras.Input((16,)), layers.Dense(24, "relu"), layers.Dense(8)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    operators = read_graph(ModelFile(build(model, batch_size=4).data)).operators[0]
    assert not {each.name for each in operators} & {"MINIMUM", "MAXIMUM", "RELU_N1_TO_1", "GREATER"}


def test_the_error_function_is_exact_near_zero(kernel_parity):
    for size in (1e-4, 1e-2, 0.49, 0.51):
        kernel_parity.add(f"erf({size})", tf.math.erf, np.linspace(-size, size, 21).astype(np.float32))
    kernel_parity.check()


def test_products_equal_the_kernel_whatever_is_transposed(kernel_parity):
    random = np.random.default_rng(4)
    for rows, inner, columns, left, right in itertools.product([1, 5], [1, 7], [1, 3], [False, True], [False, True]):
        a = random.normal(size=(inner, rows) if left else (rows, inner)).astype(np.float32)
        b = random.normal(size=(columns, inner) if right else (inner, columns)).astype(np.float32)

        def product(a, b, left=left, right=right):
            return tf.matmul(a, b, transpose_a=left, transpose_b=right)

        kernel_parity.add(f"{rows} {inner} {columns} {left} {right}", product, a, b)
    kernel_parity.check()


def test_the_sign_bit_is_what_bitwise_and_finds(kernel_parity):
    def argmax(x):
        return tf.cast(tf.bitwise.bitwise_and(tf.bitcast(x, tf.int32), tf.constant(-(2**31))) < 0, tf.float32)

    kernel_parity.add("sign", argmax, POINTS)
    kernel_parity.check()
