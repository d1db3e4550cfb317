"""Random changes of images, by the seed that is an input of the training step."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from keras_coverage.models import regression
from keras_coverage.rows import covers, refuses

IMAGE = (6, 5, 3)


def augmented(layer: keras.layers.Layer) -> keras.Model:
    """Images in [0, 1] before the layer, and layers that learn after it."""
    unit = layers.Activation("sigmoid")
    return regression(IMAGE, unit, layer, layers.Conv2D(2, 3), layers.Activation("tanh"))


def row(name: str, *variants: dict[str, Any], **more: Any) -> None:
    """A row for an augmentation with one or several settings."""
    api = getattr(layers, name)
    models = {
        ", ".join(f"{key}={value}" for key, value in settings.items()) or "as it is": (
            lambda settings=settings: augmented(api(**settings))
        )
        for settings in variants
    }
    covers(api, models, **more)


RANGE = {"value_range": (0, 1)}
row("RandomFlip", {"mode": "horizontal_and_vertical"}, {"mode": "horizontal"})
row("RandomRotation", {"factor": 0.2}, {"factor": 0.2, "interpolation": "nearest", "fill_mode": "constant"})
row("RandomZoom", {"height_factor": 0.3}, {"height_factor": 0.3, "width_factor": 0.2, "fill_mode": "nearest"})
row(
    "RandomTranslation",
    {"height_factor": 0.3, "width_factor": 0.2},
    {"height_factor": 0.3, "width_factor": 0.2, "fill_mode": "wrap"},
)
covers(
    layers.RandomCrop,
    {"4 x 4": lambda: regression(IMAGE, layers.RandomCrop(4, 4), layers.Conv2D(2, 3), layers.GlobalMaxPooling2D())},
    note="Keras crops in training only (3.15): what follows must take any size",
)
row("RandomContrast", {"factor": 0.4, **RANGE})
row("RandomBrightness", {"factor": 0.4, **RANGE})
row("RandomShear", {"x_factor": (0.1, 0.3), "y_factor": (0.0, 0.2)})
row("RandomPerspective", {"factor": 0.3})
row("RandomErasing", {"factor": 1.0, **RANGE})
row("RandomHue", {"factor": 0.3, **RANGE})
row("RandomSaturation", {"factor": 0.3, **RANGE})
row("RandomColorJitter", {"brightness_factor": 0.2, "contrast_factor": 0.2, "saturation_factor": 0.2, **RANGE})
row("RandomColorDegeneration", {"factor": 0.4, **RANGE})
row("RandomGrayscale", {"factor": 0.5})
row("RandomInvert", {"factor": 0.5, **RANGE})
row("RandomPosterization", {"factor": 4, **RANGE}, gradient=False)
row("RandomSharpness", {"factor": 0.5, **RANGE})
row("RandomGaussianBlur", {"factor": 1.0, "kernel_size": 3, "sigma": 1.0, **RANGE})
refuses(
    layers.RandomElasticTransform,
    "It blurs with a filter whose width is drawn at random, and the runtimes want shapes that are known",
    {"1.0": lambda: augmented(layers.RandomElasticTransform(factor=1.0, value_range=(0, 1)))},
)
row("AutoContrast", RANGE)
covers(
    layers.Equalization,
    {"in a layer of your own": lambda: augmented(Equalized())},
    note="Keras makes one histogram of all images of a batch, so the last one is not padded",
    gradient=False,
)
refuses(
    layers.AugMix,
    "Keras chooses the operations with Python's random numbers, once when the step is traced",
    {"two chains": lambda: augmented(layers.AugMix((0, 1), num_chains=2))},
)
row("RandAugment", RANGE)
row("ContrastLimitedAdaptiveHistogramEqualization", RANGE, gradient=False)
row("Solarization", {"addition_factor": 0.2, "threshold_factor": 0.5, **RANGE})
for mixing in (layers.CutMix, layers.MixUp):
    refuses(mixing, "Takes images and labels together, in a data pipeline: no model can hold it", gradient=False)
covers(
    layers.Pipeline,
    {"flip, contrast": lambda: augmented(layers.Pipeline([layers.RandomFlip(), layers.RandomContrast(0.3)]))},
)
refuses(
    layers.MaxNumBoundingBoxes, "Takes boxes beside images, in a data pipeline: no model can hold it", gradient=False
)


class Equalized(layers.Layer):
    """Holds the layer."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.equalize = layers.Equalization(value_range=(0, 1))

    def call(self, images: Any) -> Any:
        return self.equalize(images)
