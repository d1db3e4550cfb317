"""Keras's own step, and steps written with a raw tf.function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from local_steps.cases import CASES, load_batch
from local_steps.keras_models import load


def make_step(name: str, folder: Path, threads: int, form: str) -> Callable[[], float]:
    """A training step; a form is "train_on_batch", or what is done to a tf.function: "graph", "XLA", "unrolled"."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = load(name, folder, unroll=form == "unrolled")
    x, y = load_batch(folder)
    if CASES[name].head_only:
        for layer in model.layers[:-1]:
            layer.trainable = False
        model.compile(keras.optimizers.SGD(CASES[name].learning_rate), "sparse_categorical_crossentropy")
    if form == "train_on_batch":
        return lambda: float(model.train_on_batch(x, y))
    return _raw_step(name, model, tf.constant(x), tf.constant(y), jit_compile=form == "XLA")


def _raw_step(name: str, model: Any, x: Any, y: Any, *, jit_compile: bool) -> Callable[[], float]:
    """Logits instead of probabilities, gradients of what is trained only, and the update by hand."""
    case = CASES[name]
    head = model.layers[-1]
    head.activation = None
    weights = [variable.value for variable in model.trainable_variables]
    base = keras.Model(model.inputs, head.input) if case.head_only else None

    @tf.function(jit_compile=jit_compile)
    def step(x: Any, y: Any) -> Any:
        features = base(x, training=False) if base else x
        with tf.GradientTape() as tape:
            logits = head(features) if base else model(x, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(case.learning_rate * tf.convert_to_tensor(gradient))
        return loss

    return lambda: float(step(x, y))
