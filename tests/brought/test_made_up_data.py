"""What verification makes up suits the model: numbers lie where layers and losses want them, or it is said."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers, ops

from edgefl.errors import ModelError
from edgefl_converters.building.building import build
from edgefl_converters.training_step.specification import specify
from edgefl_converters.verification.agreement import check_agreement
from edgefl_converters.verification.made_up_batches import draw_batches


class Logarithm(layers.Layer):
    def call(self, inputs):
        return ops.log(inputs)


class Exploding(layers.Layer):
    """Whose gradient at its own weights, which are zero, is no number, though its value is one."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1],), initializer="zeros")

    def call(self, inputs):
        return inputs * ops.sqrt(self.kernel)


class Table(layers.Layer):
    """Makes places in a table out of its features, as augmentation does of colours; what is no number has no place."""

    def call(self, inputs):
        return inputs + ops.take(ops.arange(256.0), ops.cast(ops.clip(inputs, 0.0, 255.0), "int32"))


def of(*stack):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(stack)
    model.compile("sgd", "mse")
    return model


def numbers_for(model, **settings):
    batches = draw_batches(specify(model, batch_size=4), 1, np.random.default_rng(0), **settings)
    return batches[0].inputs[0]


def test_images_lie_in_the_range_of_the_layer_that_augments_them_and_other_inputs_are_normal():
    assert numbers_for(of(keras.Input((50,)), layers.Dense(1))).min() < -1
    posterized = of(keras.Input((6, 6, 3)), layers.RandomPosterization(4, value_range=(0, 255)), layers.Dense(1))
    numbers = numbers_for(posterized)
    assert 0 <= numbers.min() < 20
    assert 230 < numbers.max() <= 255


def test_labels_that_a_loss_ignores_are_among_those_that_are_drawn_but_never_all_of_them():
    model = of(keras.Input((2,)), layers.Dense(3))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-100))
    batches = draw_batches(specify(model, batch_size=4), 20, np.random.default_rng(0))
    labels = np.stack([batch.targets[0] for batch in batches])
    assert set(labels.ravel().tolist()) == {-100, 0, 1, 2}
    assert (labels.max(axis=1) >= 0).all()


def test_a_rescaling_before_that_layer_is_undone():
    stack = [keras.Input((6, 6, 3)), layers.Rescaling(1 / 127.5, -1), layers.RandomBrightness(0.2, value_range=(-1, 1))]
    numbers = numbers_for(of(*stack, layers.Dense(1)))
    assert numbers.min() >= 0
    assert 230 < numbers.max() <= 255.001


def test_a_model_of_logarithms_is_verified_on_numbers_above_zero():
    model = of(keras.Input((5,)), Logarithm(), layers.Dense(2))
    assert check_agreement(model, build(model, batch_size=4).data).passed


def test_that_no_loss_is_defined_is_said_of_keras_and_not_of_the_file():
    model = of(keras.Input((5,)), layers.Dense(8), Logarithm(), layers.Dense(2))
    with pytest.raises(ModelError, match="In Keras itself the model's loss is nan on made-up data"):
        check_agreement(model, build(model, batch_size=4).data)


def test_that_training_diverges_is_said_of_keras_and_not_of_the_file():
    model = of(keras.Input((5,)), Exploding(), layers.Dense(2))
    with pytest.raises(ModelError, match=r"diverges in Keras itself.*in step 2 of 10") as refusal:
        check_agreement(model, build(model, batch_size=4).data)
    assert "learning rate" in refusal.value.hint
    assert "report" not in str(refusal.value)


def test_a_layer_that_refuses_what_is_no_number_is_trained_in_smaller_steps():
    model = of(keras.Input((5,)), layers.Dense(4), layers.Rescaling(1000.0), Table(), layers.Dense(2))
    report = check_agreement(model, build(model, batch_size=4).data)
    assert report.passed
    assert report.learning_rate < 0.01
