"""Layers that make images larger or smaller."""

from __future__ import annotations

import keras
from keras import layers

from keras_coverage.models import regression
from keras_coverage.rows import covers

LINE, IMAGE, VOLUME = (5, 3), (5, 4, 3), (3, 4, 3, 2)


def resized(shape: tuple[int, ...], layer: keras.layers.Layer) -> keras.Model:
    """The layer behind one that needs its input gradient."""
    return regression(shape, layer, first=layers.Dense(3, "tanh"))


covers(layers.UpSampling1D, {"2": lambda: resized(LINE, layers.UpSampling1D(2))})
covers(
    layers.UpSampling2D,
    {
        "nearest": lambda: resized(IMAGE, layers.UpSampling2D((2, 3))),
        "bilinear": lambda: resized(IMAGE, layers.UpSampling2D(2, interpolation="bilinear")),
        "bicubic": lambda: resized(IMAGE, layers.UpSampling2D(2, interpolation="bicubic")),
    },
)
covers(layers.UpSampling3D, {"2": lambda: resized(VOLUME, layers.UpSampling3D(2))})
covers(
    layers.Resizing,
    {
        "bilinear, larger": lambda: resized(IMAGE, layers.Resizing(8, 7)),
        "bilinear, smaller": lambda: resized(IMAGE, layers.Resizing(3, 3)),
        "nearest": lambda: resized(IMAGE, layers.Resizing(7, 3, interpolation="nearest")),
        "bicubic": lambda: resized(IMAGE, layers.Resizing(7, 6, interpolation="bicubic")),
        "cropped to the aspect ratio": lambda: resized(IMAGE, layers.Resizing(6, 6, crop_to_aspect_ratio=True)),
        "antialias": lambda: resized(IMAGE, layers.Resizing(3, 2, antialias=True)),
    },
)
covers(layers.Cropping1D, {"cropping": lambda: resized(LINE, layers.Cropping1D((1, 2)))})
covers(layers.Cropping2D, {"cropping": lambda: resized(IMAGE, layers.Cropping2D(((1, 2), (0, 1))))})
covers(layers.Cropping3D, {"cropping": lambda: resized(VOLUME, layers.Cropping3D(((1, 0), (0, 1), (1, 1))))})
covers(layers.ZeroPadding1D, {"padding": lambda: resized(LINE, layers.ZeroPadding1D((1, 2)))})
covers(layers.ZeroPadding2D, {"padding": lambda: resized(IMAGE, layers.ZeroPadding2D(((1, 2), (0, 1))))})
covers(layers.ZeroPadding3D, {"padding": lambda: resized(VOLUME, layers.ZeroPadding3D(1))})
covers(
    layers.CenterCrop,
    {
        "smaller": lambda: resized(IMAGE, layers.CenterCrop(3, 2)),
        "larger": lambda: resized(IMAGE, layers.CenterCrop(7, 7)),
    },
)
