"""Sums and means over thousands of positions are as exact as Keras's, so that networks on long windows are verified."""

from __future__ import annotations

import keras
import pytest
from keras import layers

from edgefl_converters.building.building import build
from edgefl_converters.verification.agreement import check_agreement


def convolution(filters, size, strides=1):
    return [layers.Conv1D(filters, size, strides, padding="same", activation="relu"), layers.BatchNormalization()]


def classifier(shape, *stack, optimizer="adam"):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(shape), *stack, layers.Dense(4, activation="softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def eeg():
    """Six times Conv1D, relu and BatchNormalization on windows of 512 steps: 40 times off in a gradient before."""
    stack = [each for index in range(6) for each in convolution(16 * (1 + index // 2), 5, 2)]
    return classifier((512, 8), *stack, layers.GlobalAveragePooling1D())


def activity():
    stack = [*convolution(64, 3), *convolution(64, 3), layers.MaxPooling1D(2), *convolution(128, 3)]
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    return classifier((512, 6), *stack, layers.GlobalAveragePooling1D(), optimizer=optimizer)


def bearing():
    """The first layer's windows are wide (WDCNN, Zhang et al. 2017)."""
    stack = [*convolution(16, 64, 16), layers.MaxPooling1D(2), *convolution(32, 3), layers.MaxPooling1D(2)]
    stack += [*convolution(64, 3), layers.MaxPooling1D(2), *convolution(64, 3), layers.Flatten()]
    return classifier((4096, 1), *stack, layers.Dense(100, activation="relu"), layers.Dropout(0.5))


def separable():
    stack = []
    for filters in (32, 64):
        stack += [layers.SeparableConv1D(filters, 9, strides=4, padding="same", activation="relu")]
        stack += [layers.BatchNormalization(momentum=0.9)]
    return classifier((4096, 3), *stack, layers.GlobalMaxPooling1D(), optimizer="nadam")


def causal():
    stack = []
    for dilation in (1, 2, 4, 8):
        stack += [layers.Conv1D(24, 3, dilation_rate=dilation, padding="causal"), layers.LayerNormalization()]
        stack += [layers.ReLU()]
    return classifier((1024, 8), *stack, layers.GlobalAveragePooling1D(), optimizer="adamw")


def in_groups():
    stack = []
    for filters, groups in ((32, 4), (64, 8)):
        stack += [layers.Conv1D(filters, 7, 2, padding="same"), layers.GroupNormalization(groups), layers.ReLU()]
    optimizer = keras.optimizers.Adam(1e-3, clipnorm=1.0)
    return classifier((2048, 4), *stack, layers.GlobalAveragePooling1D(), optimizer=optimizer)


def normalised_first():
    stack = [layers.BatchNormalization(), *convolution(16, 15, 4), *convolution(16, 15, 4), layers.Flatten()]
    return classifier((4096, 12), *stack, optimizer="adagrad")


def of_prime_length():
    return classifier((4099, 3), *convolution(8, 5), layers.GlobalAveragePooling1D())


def across_electrodes():
    """EEGNet (Lawhern et al. 2018): wide filters over time on one channel, then over electrodes."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((16, 1024, 1))
    x = layers.BatchNormalization()(layers.Conv2D(8, (1, 64), padding="same", use_bias=False)(inputs))
    x = layers.DepthwiseConv2D((16, 1), use_bias=False, depth_multiplier=2)(x)
    x = layers.AveragePooling2D((1, 4))(layers.Activation("elu")(layers.BatchNormalization()(x)))
    x = layers.SeparableConv2D(16, (1, 16), use_bias=False, padding="same")(x)
    x = layers.AveragePooling2D((1, 8))(layers.Activation("elu")(layers.BatchNormalization()(x)))
    model = keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.Flatten()(x)))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def every_step():
    """A U-Net: a class for each step, so that the loss too is a sum over all of them."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((2048, 1))
    kept = []
    for filters in (8, 16, 32):
        x = layers.BatchNormalization()(layers.Conv1D(filters, 9, padding="same", activation="relu")(x))
        kept.append(x)
        x = layers.MaxPooling1D(4)(x)
    for filters, beside in zip((32, 16, 8), reversed(kept), strict=True):
        x = layers.Concatenate()([layers.UpSampling1D(4)(x), beside])
        x = layers.BatchNormalization()(layers.Conv1D(filters, 9, padding="same", activation="relu")(x))
    model = keras.Model(inputs, layers.Conv1D(3, 1, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def wide_strides():
    keras.utils.set_random_seed(2)
    stack = [layers.Conv2DTranspose(8, 16, strides=16, padding="same", activation="relu"), layers.Conv2D(1, 3)]
    model = keras.Sequential([keras.Input((8, 8, 8)), *stack])
    model.compile(keras.optimizers.AdamW(1e-3, clipnorm=1.0), "mse")
    return model


@pytest.mark.slow
def test_a_network_for_eeg_trains_as_in_keras():
    model = eeg()
    check_agreement(model, build(model).data).require()


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        *(activity, bearing, separable, causal, in_groups, normalised_first, of_prime_length, across_electrodes),
        *(every_step, wide_strides),
    ],
)
def test_networks_on_long_windows_train_as_in_keras(make):
    model = make()
    check_agreement(model, build(model).data).require()
