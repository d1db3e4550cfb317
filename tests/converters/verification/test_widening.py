"""What Keras computes in float32 alone has a float64 reference too: models with such layers are not refused falsely."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from edgefl_converters.building.building import build
from edgefl_converters.training_step.specification import specify
from edgefl_converters.verification.agreement import check_agreement
from edgefl_converters.verification.made_up_batches import draw_batches
from edgefl_converters.verification.reference import Reference
from edgefl_converters.verification.widening import Widening


def recurrent():
    """With a loop and its gradient, a lookup, dropout; the optimizer's constants are the same in both types."""
    stack = [keras.Input((5,), dtype="int32"), layers.Embedding(7, 4), layers.SimpleRNN(6), layers.Dropout(0.5)]
    model = keras.Sequential([*stack, layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.5, momentum=0.5), "sparse_categorical_crossentropy")
    return model


def image():
    stack = [keras.Input((9, 9, 1)), layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2), layers.Flatten()]
    model = keras.Sequential([*stack, layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.5, nesterov=True, momentum=0.5), "mse")
    return model


@pytest.mark.parametrize("make", [recurrent, image])
def test_what_is_widened_computes_what_keras_computes_in_float64(make):
    keras.utils.set_random_seed(1)
    specification = specify(make(), batch_size=4)
    batches = draw_batches(specification, 3, np.random.default_rng(0))

    def run(*args, **settings):
        reference = Reference(specification, *args, **settings)
        reference.reset()
        logs = [reference.train(batch, 0.25)["loss"] for batch in batches]
        after = reference.snapshot()
        gradient = reference.gradient(batches[0])
        outputs = reference.predict(batches[0])
        reference.close()
        return [*logs, *after.variables.values(), *after.slots.values(), *gradient.values(), *outputs]

    exact, widened, plain = run("float64"), run("float32", widened=True), run("float32")
    for expected, found in zip(exact, widened, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert max(np.max(np.abs(left - right)) for left, right in zip(exact, plain, strict=True)) > 1e-8


def test_what_python_assigns_holds_in_the_next_call_and_digits_stay():
    weight = tf.Variable(1.0)
    counter = tf.Variable(0)

    def step(x):
        counter.assign_add(1)
        if_large = tf.cond(weight > 10.0, lambda: weight / 3.0, lambda: weight * 1.0)
        return {"sum": weight.assign_add(x), "branch": if_large, "thirds": tf.while_loop(*third(x))[0]}

    def third(x):
        return (lambda y: y > 0.5), (lambda y: (y / 3.0,)), [x]

    traced = tf.function(step, input_signature=[tf.TensorSpec([], tf.float32)]).get_concrete_function()
    wide = Widening().function(traced)
    tiny = np.float32(2.0**-40)
    wide(tiny)
    assert float(wide(tiny)["sum"]) == 1.0 + 2.0**-39
    assert float(weight) == 1.0
    weight.assign(20.0)
    found = wide(np.float32(1.0))
    assert found["sum"] == 21.0
    assert float(found["branch"]) == pytest.approx(20.0 / 3.0, rel=1e-14)
    assert float(found["thirds"]) == pytest.approx(1.0 / 3.0, rel=1e-14)
    assert int(counter) == 3


def test_an_op_that_tensorflow_has_in_float32_alone_is_done_in_it():
    def step(images):
        return {"half": tf.image.resize(images * 3.0, (2, 2), method="bilinear")}

    traced = tf.function(step, input_signature=[tf.TensorSpec([1, 4, 4, 1], tf.float32)]).get_concrete_function()
    images = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
    (half,) = Widening().function(traced)(images).values()
    assert half.dtype == tf.float64
    np.testing.assert_array_equal(half, traced(images)["half"])


class Degrees(layers.Layer):
    """Makes a float32 number of its own, as RandomRotation does, and cannot be made again from its config."""

    def __init__(self, needed):
        super().__init__()
        self.needed = needed

    def call(self, images):
        return images * keras.ops.convert_to_tensor(np.pi / 180.0) * self.needed


ONLY_IN_FLOAT32 = {
    "rotation": lambda: layers.RandomRotation(0.1, seed=1),
    "shear": lambda: layers.RandomShear(0.2, 0.2, seed=1),
    "own": lambda: Degrees(57.0),
}


@pytest.mark.parametrize(
    ("name", "batch_size"),
    [
        ("rotation", 8),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [("rotation", 32), ("shear", 4), ("own", 8)]),
    ],
)
def test_equal_gradients_of_many_positions_are_no_reason_to_refuse(name, batch_size):
    """Every position of the mean has the same gradient: Keras's sum of them in float32 is off by 3e-5 and more."""
    keras.utils.set_random_seed(1)
    stack = [ONLY_IN_FLOAT32[name](), layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((32, 32, 3)), *stack, layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    report = check_agreement(model, build(model, batch_size=batch_size).data)
    report.require()
    assert report.reference.endswith("float64")
