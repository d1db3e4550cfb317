"""Colours, projective transforms and equations against TensorFlow's own kernels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from sampling import sampled

transforms = st.tuples(
    st.sampled_from(["NEAREST", "BILINEAR"]),
    st.sampled_from(["CONSTANT", "REFLECT", "WRAP", "NEAREST"]),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.integers(0, 1000),
)


def numbers(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def add(parity, case):
    interpolation, fill, size, seed = case
    generator = np.random.default_rng(seed)
    matrix = np.asarray([1, 0, 0, 0, 1, 0, 0, 0], np.float32) + 0.3 * generator.normal(size=(2, 8))
    matrix[:, [2, 5]] *= 20
    matrix[:, 6:] *= 0.05

    def transform(images, matrices):
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=matrices,
            output_shape=list(size),
            fill_value=0.5,
            interpolation=interpolation,
            fill_mode=fill,
        )

    parity.add(f"{case}", transform, numbers(2, 5, 4, 3), matrix.astype(np.float32))


def test_projective_transforms_equal_the_kernel(kernel_parity):
    for case in sampled(transforms, 15):
        add(kernel_parity, case)
    kernel_parity.check()


@pytest.mark.slow
def test_projective_transforms_equal_the_kernel_in_many_more_cases(kernel_parity):
    for case in sampled(transforms, 200):
        add(kernel_parity, case)
    kernel_parity.check()


def test_colours_equal_the_kernels(kernel_parity):
    colours = np.random.default_rng(1).uniform(size=(50, 3)).astype(np.float32)
    colours[:8] = [[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [0.5, 0.5, 0.2]]
    kernel_parity.add("to HSV", lambda x: tf.raw_ops.RGBToHSV(images=x), colours)
    kernel_parity.add("to RGB", lambda x: tf.raw_ops.HSVToRGB(images=x), colours)
    kernel_parity.check()


def test_equations_are_solved_also_where_the_first_pivot_is_zero(kernel_parity):
    matrices = numbers(4, 5, 5)
    matrices[0, 0, 0] = 0.0
    matrices[1] = np.eye(5)[::-1]
    right = numbers(4, 5, 2, seed=2)
    kernel_parity.add("inverse", tf.linalg.inv, matrices)
    kernel_parity.add("solve", lambda a, b: tf.raw_ops.MatrixSolve(matrix=a, rhs=b), matrices, right)
    kernel_parity.check()


def test_counting_equals_the_kernels(kernel_parity):
    counted = np.random.default_rng(3).integers(0, 5, (4, 6)).astype(np.int32)
    none = np.zeros([0], np.float32)
    for binary in (False, True):
        kernel_parity.add(
            f"bincount {binary}",
            lambda x, binary=binary: tf.raw_ops.DenseBincount(input=x, size=5, weights=none, binary_output=binary),
            counted,
        )
    kernel_parity.add(
        "bucketize", lambda x: tf.raw_ops.Bucketize(input=x, boundaries=[-0.5, 0.0, 0.25, 2.0]), numbers(20)
    )
    scores, targets = numbers(8, 6), np.random.default_rng(4).integers(0, 6, 8).astype(np.int32)
    scores[0] = 1.0
    for k in (1, 3):
        kernel_parity.add(
            f"in top {k}",
            lambda x, y, k=k: tf.cast(tf.raw_ops.InTopKV2(predictions=x, targets=y, k=k), tf.float32),
            scores,
            targets,
        )
    kernel_parity.check()


def test_rearranging_equals_the_kernels(kernel_parity):
    volume = numbers(2, 3, 4, 2, 3)
    blocks, paddings = [2, 2, 1], [[1, 0], [0, 2], [0, 0]]
    kernel_parity.add(
        "space to batch",
        lambda x: tf.raw_ops.SpaceToBatchND(input=x, block_shape=blocks, paddings=paddings),
        volume,
    )
    kernel_parity.add(
        "batch to space",
        lambda x: tf.raw_ops.BatchToSpaceND(input=x, block_shape=blocks, crops=[[1, 0], [0, 1], [0, 0]]),
        numbers(8, 2, 2, 3, 2),
    )
    kernel_parity.add("two axes reversed", lambda x: tf.reverse(x, [1, 3]), volume)
    for places, shift in itertools.product((1, 5), (tf.bitwise.left_shift, tf.bitwise.right_shift)):
        kernel_parity.add(
            f"bytes {shift.__name__} by {places}",
            lambda x, places=places, shift=shift: tf.cast(
                shift(tf.cast(x, tf.uint8), tf.constant(places, tf.uint8)), tf.int32
            ),
            np.arange(256).astype(np.int32),
        )
    kernel_parity.check()
