"""Layers on images, lines and volumes: convolutions, pooling, what changes a size, augmentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from keras_coverage.pairwise.places import ALL_RANKS, SHAPES, behind, first_channels, images, layer, own, seen
from keras_coverage.pairwise.subjects import Built, Settings


def _convolutions() -> None:
    for d in (1, 2, 3):
        place = behind(SHAPES[d])
        causal = ("valid", "same", "causal") if d == 1 else ("valid", "same")
        sizes = {"filters": (4, 2), "kernel_size": (3, 1)}
        layer(f"Conv{d}D", place, padding=causal, **sizes)
        layer(f"Conv{d}DTranspose", place, **sizes)
        layer(
            f"ConvLSTM{d}D",
            _recurrent_images(d),
            filters=(2, 1),
            kernel_size=(2, 1),
            activation=("tanh", "relu"),
            mask=(False, True),
        )
    for d in (1, 2):
        layer(f"DepthwiseConv{d}D", behind(SHAPES[d]), kernel_size=(3, 1))
        layer(f"SeparableConv{d}D", behind(SHAPES[d]), filters=(4, 2), kernel_size=(3, 1))


def _pooling() -> None:
    for d in (1, 2, 3):
        for kind in ("Max", "Average"):
            layer(f"{kind}Pooling{d}D", behind(SHAPES[d]), pool_size=(2, 3), strides=(None, 1, 2))
            layer(f"Global{kind}Pooling{d}D", behind(SHAPES[d]))
            layer(f"Adaptive{kind}Pooling{d}D", behind(SHAPES[d]), output_size=(2, 3))


def _shapes() -> None:
    layer("Reshape", behind((3, 4)), target_shape=((2, 6), (12,), (-1, 2), (1, 3, 4)))
    layer("Flatten", behind(), **ALL_RANKS)
    layer("Permute", behind((3, 2, 4)), dims=((2, 1, 3), (3, 1, 2), (1, 3, 2)))
    layer("RepeatVector", behind((5,)), n=(3, 1))
    for d in (1, 2, 3):
        place, one = behind(SHAPES[d]), [(1, 2), (0, 1), (1, 0)]
        several = tuple(one[:d]) if d > 1 else (1, 2)
        layer(f"Cropping{d}D", place, cropping=(1, several))
        layer(f"ZeroPadding{d}D", place, padding=(1, several))
        layer(
            f"UpSampling{d}D",
            place,
            size=(2, (2, 3, 1)[:d] if d > 1 else 3),
            **({"interpolation": ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5")} if d == 2 else {}),
        )


def _images() -> None:
    kinds = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5")
    layer(
        "Resizing",
        behind((5, 4, 3)),
        height=(7, 3),
        width=(6, 2),
        interpolation=kinds,
        crop_to_aspect_ratio=(False, True),
        pad_to_aspect_ratio=(False, True),
        fill_mode=("constant",),
        antialias=(False, True),
    )
    layer("CenterCrop", behind((5, 4, 3)), height=(3, 7), width=(2, 6))
    factor = {"factor": (0.4, (0.1, 0.3))}
    place = images()
    for name in (
        "RandomBrightness",
        "RandomContrast",
        "RandomColorDegeneration",
        "RandomHue",
        "RandomSaturation",
        "RandomSharpness",
    ):
        layer(name, place, **factor)
    for name in ("RandomGrayscale", "RandomInvert"):
        layer(name, place, factor=(0.5, 1.0))
    layer("RandomPosterization", place, factor=(4, 7))
    layer(
        "RandomColorJitter",
        place,
        brightness_factor=(None, 0.2),
        contrast_factor=(None, 0.2),
        saturation_factor=(None, 0.2),
        hue_factor=(None, 0.2),
    )
    layer("RandomErasing", place, factor=(1.0, 0.5), scale=((0.02, 0.33), (0.2, 0.6)), fill_value=(None, 0.5))
    layer("RandomFlip", place, mode=("horizontal_and_vertical", "horizontal", "vertical"))
    layer("RandomGaussianBlur", place, factor=(1.0, 0.5), kernel_size=(3, (3, 5)), sigma=(1.0, (0.5, 2.0)))
    layer("RandomElasticTransform", place, factor=(1.0, 0.5), scale=(1.0, 0.5))
    layer("RandomPerspective", place, factor=(1.0, 0.5), scale=(1.0, 0.4))
    layer("RandomRotation", place, **factor)
    layer("RandomShear", place, x_factor=(0.2, (0.1, 0.3)), y_factor=(0.0, 0.2))
    layer("RandomTranslation", place, height_factor=(0.3, (-0.2, 0.3)), width_factor=(0.2, 0.0))
    layer("RandomZoom", place, height_factor=(0.3, (-0.2, 0.3)), width_factor=(None, 0.2))
    layer("RandomCrop", _cropped, height=(4, 3), width=(4, 3))
    layer("AutoContrast", place)
    layer("Equalization", _held, bins=(256, 64))
    layer("Solarization", place, addition_factor=(0.0, 0.2), threshold_factor=(0.0, 0.5))
    layer("ContrastLimitedAdaptiveHistogramEqualization", place, clip_limit=(4.0, 2.0), tile_grid_size=((8, 8), (2, 2)))
    layer(
        "AugMix", place, num_chains=(3, 2), chain_depth=(3, 1), factor=(0.3,), alpha=(1.0, 0.5), all_ops=(True, False)
    )
    layer("RandAugment", place, num_ops=(2, 1), factor=(0.5,))
    layer("Pipeline", _pipeline, layers=("flip, contrast", "zoom"))


class _Held(layers.Wrapper):
    def call(self, images: Any) -> Any:
        return self.layer(images)


def _held(api: Any, settings: Settings) -> Built:
    """Keras (3.15) says of the layer that it returns the very tensor that it is given, which no model can have."""
    return images()(lambda **own_settings: _Held(api(**own_settings)), settings)


def _pipeline(api: Any, settings: Settings) -> Built:
    inner = (
        [layers.RandomFlip(), layers.RandomContrast(0.3)] if "flip" in settings["layers"] else [layers.RandomZoom(0.2)]
    )
    return images()(api, {**settings, "layers": inner})


def _cropped(api: Any, settings: Settings) -> Built:
    """Keras crops in training only: what follows takes any size."""
    given = keras.Input(first_channels((6, 5, 3), settings))
    found = api(**own(settings))(given)
    return Built([given], seen(layers.GlobalMaxPooling2D(settings["data_format"])(found)))


def _recurrent_images(dimensions: int) -> Callable[[Any, Settings], Built]:
    shape = {1: (3, 5, 2), 2: (3, 4, 5, 2), 3: (2, 4, 3, 4, 2)}[dimensions]

    def build(api: Any, settings: Settings) -> Built:
        row = (shape[0], *first_channels(shape[1:], settings))
        given = keras.Input(row, batch_size=4 if settings["stateful"] else None)
        features = layers.Dense(row[-1], "tanh")(given)
        if settings["mask"]:
            features = layers.Masking()(features)
        return Built([given], seen(api(**own(settings))(features)))

    return build


for _fill in (_convolutions, _pooling, _shapes, _images):
    _fill()
