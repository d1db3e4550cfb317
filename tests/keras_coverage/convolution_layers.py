"""Convolutions of one, two and three dimensions, plain, transposed, depthwise and separable."""

from __future__ import annotations

import keras
from keras import layers

from keras_coverage.models import regression
from keras_coverage.rows import covers

LINE, IMAGE, VOLUME = (9, 4), (7, 6, 4), (5, 4, 6, 4)


def after(shape: tuple[int, ...], layer: keras.layers.Layer) -> keras.Model:
    """The layer behind one that needs its input gradient."""
    return regression(shape, layer, first=layers.Dense(4, "tanh"))


covers(
    layers.Conv1D,
    {
        "valid": lambda: after(LINE, layers.Conv1D(3, 4, activation="relu")),
        "same, strides": lambda: after(LINE, layers.Conv1D(3, 3, strides=2, padding="same")),
        "causal, dilated": lambda: after(LINE, layers.Conv1D(3, 3, dilation_rate=2, padding="causal")),
        "groups": lambda: after(LINE, layers.Conv1D(4, 3, groups=2)),
    },
)
covers(
    layers.Conv2D,
    {
        "valid": lambda: after(IMAGE, layers.Conv2D(3, (3, 2), activation="relu")),
        "same, strides": lambda: after(IMAGE, layers.Conv2D(3, 3, strides=(2, 3), padding="same")),
        "dilated": lambda: after(IMAGE, layers.Conv2D(3, 3, dilation_rate=2, padding="same")),
        "groups": lambda: after(IMAGE, layers.Conv2D(4, 3, groups=2, use_bias=False)),
        "1x1": lambda: after(IMAGE, layers.Conv2D(5, 1)),
    },
)
covers(
    layers.Conv3D,
    {
        "valid": lambda: after(VOLUME, layers.Conv3D(3, (3, 2, 3), activation="relu")),
        "same, strides": lambda: after(VOLUME, layers.Conv3D(3, 3, strides=(2, 1, 2), padding="same")),
        "dilated": lambda: after(VOLUME, layers.Conv3D(3, 2, dilation_rate=2, padding="same")),
        "groups": lambda: after(VOLUME, layers.Conv3D(4, 2, groups=2)),
    },
)
covers(
    layers.Conv1DTranspose,
    {
        "strides": lambda: after(LINE, layers.Conv1DTranspose(3, 3, strides=2)),
        "same, output padding": lambda: after(
            LINE, layers.Conv1DTranspose(3, 3, strides=2, padding="same", output_padding=1)
        ),
    },
)
covers(
    layers.Conv2DTranspose,
    {
        "strides": lambda: after(IMAGE, layers.Conv2DTranspose(3, 3, strides=(2, 3))),
        "same": lambda: after(IMAGE, layers.Conv2DTranspose(3, (3, 2), strides=2, padding="same")),
        "dilated": lambda: after(IMAGE, layers.Conv2DTranspose(3, 2, dilation_rate=2)),
    },
)
covers(
    layers.Conv3DTranspose,
    {
        "strides": lambda: after(VOLUME, layers.Conv3DTranspose(3, 2, strides=(2, 1, 2))),
        "same": lambda: after(VOLUME, layers.Conv3DTranspose(3, 3, strides=2, padding="same")),
    },
)
covers(
    layers.DepthwiseConv1D,
    {
        "valid": lambda: after(LINE, layers.DepthwiseConv1D(3)),
        "same, strides, multiplied": lambda: after(
            LINE, layers.DepthwiseConv1D(3, strides=2, padding="same", depth_multiplier=2)
        ),
        "dilated": lambda: after(LINE, layers.DepthwiseConv1D(3, dilation_rate=2)),
    },
)
covers(
    layers.DepthwiseConv2D,
    {
        "valid": lambda: after(IMAGE, layers.DepthwiseConv2D(3)),
        "same, strides, multiplied": lambda: after(
            IMAGE, layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)
        ),
        "dilated": lambda: after(IMAGE, layers.DepthwiseConv2D(3, dilation_rate=2)),
    },
)
covers(
    layers.SeparableConv1D,
    {
        "same, strides": lambda: after(LINE, layers.SeparableConv1D(3, 3, strides=2, padding="same")),
        "valid, multiplied": lambda: after(LINE, layers.SeparableConv1D(3, 3, depth_multiplier=2)),
    },
)
covers(
    layers.SeparableConv2D,
    {
        "same, strides": lambda: after(IMAGE, layers.SeparableConv2D(3, 3, strides=2, padding="same")),
        "dilated": lambda: after(IMAGE, layers.SeparableConv2D(3, 3, dilation_rate=2)),
    },
)
