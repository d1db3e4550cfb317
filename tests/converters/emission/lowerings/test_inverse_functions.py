"""Hyperbolic and inverse functions, diagonals, products along an axis, norms and cross products against the kernels."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from kernel_gradients import gradient_of

WITHIN_ONE = np.concatenate([np.linspace(-0.999, 0.999, 81), [0, 1e-6, -1e-6, 1e-3, 0.4999, 0.5001]]).astype(np.float32)
ANY = np.concatenate([np.linspace(-9, 9, 181), [0, 1e-6, -1e-6, 1e-3, 0.4999, 0.5001, 40, -40, 80, -80]]).astype(
    np.float32
)
LARGE = np.array([1e5, 1e9, 1.1e9, 1e15, 1e20], np.float32)
ABOVE_ONE = np.concatenate([np.linspace(1.001, 20, 81), [1e4, 1e8]]).astype(np.float32)
NO_POLES = np.concatenate([np.linspace(-4.9, 12, 120), [0.3, 0.49, 0.51, 1e-2, 100.0, 1e4]]).astype(np.float32)

FUNCTIONS = {
    "acos": (tf.acos, WITHIN_ONE),
    "asin": (tf.asin, WITHIN_ONE),
    "atanh": (tf.atanh, WITHIN_ONE),
    "atan": (tf.atan, np.concatenate([ANY, LARGE, -LARGE])),
    "asinh": (tf.asinh, np.concatenate([ANY, LARGE, -LARGE])),
    "acosh": (tf.acosh, np.concatenate([ABOVE_ONE, LARGE])),
    "sinh": (tf.sinh, ANY),
    "cosh": (tf.cosh, ANY),
    "tan": (tf.tan, np.linspace(-1.5, 1.5, 61).astype(np.float32)),
    "digamma": (tf.math.digamma, NO_POLES),
    "reciprocal": (tf.math.reciprocal, ABOVE_ONE),
}


def test_functions_of_one_number_equal_the_kernels(kernel_parity):
    for name, (function, points) in FUNCTIONS.items():
        kernel_parity.add(name, function, points)
        if name != "digamma":  # the derivative of that is not there
            some = np.concatenate([points[:60], points[90:150]])
            kernel_parity.add(f"{name} gradient", gradient_of(function), some, np.ones_like(some))
    kernel_parity.check()


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_products_along_an_axis_equal_the_kernel(kernel_parity, exclusive, reverse):
    values = np.random.default_rng(1).uniform(0.5, 1.5, (3, 7, 2)).astype(np.float32)
    for axis in range(3):

        def product(x, axis=axis):
            return tf.math.cumprod(x, axis=axis, exclusive=exclusive, reverse=reverse)

        kernel_parity.add(f"{axis}", product, values)
        kernel_parity.add(f"{axis} gradient", gradient_of(product), values, np.ones_like(values))
    kernel_parity.check()


def test_diagonals_norms_and_cross_products_equal_the_kernels(kernel_parity):
    random = np.random.default_rng(2)
    for shape in ((4, 4), (2, 3, 5), (2, 5, 3)):
        matrix = random.normal(size=shape).astype(np.float32)
        slopes = random.normal(size=(*shape[:-2], min(shape[-2:]))).astype(np.float32)
        kernel_parity.add(f"diagonal {shape}", tf.linalg.diag_part, matrix)
        if shape[-1] == shape[-2]:
            kernel_parity.add(f"diagonal {shape} gradient", gradient_of(tf.linalg.diag_part), matrix, slopes)
        kernel_parity.add(f"matrix {shape}", tf.linalg.diag, slopes)
        kernel_parity.add(
            f"matrix {shape} gradient", gradient_of(tf.linalg.diag), slopes, tf.linalg.diag(slopes).numpy()
        )
    kernel_parity.add("trace", tf.linalg.trace, random.normal(size=(2, 4, 4)).astype(np.float32))
    vectors = random.normal(size=(2, 5, 3)).astype(np.float32)
    kernel_parity.add("cross", tf.linalg.cross, vectors, vectors[::-1].copy())
    for axes in (-1, 0, (0, 2), None):
        for keepdims in (False, True):

            def norm(x, axes=axes, keepdims=keepdims):
                return tf.math.reduce_euclidean_norm(x, axes, keepdims=keepdims)

            kernel_parity.add(f"norm {axes} {keepdims}", norm, vectors)
    kernel_parity.check()
