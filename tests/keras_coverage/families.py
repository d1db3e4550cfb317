"""All rows: importing the modules of the families fills the table."""

from keras_coverage import (
    activations,
    attention_layers,
    augmentation_layers,
    convolution_layers,
    core_layers,
    losses,
    merging_layers,
    metrics,
    normalization_layers,
    optimizers,
    pooling_layers,
    preprocessing_layers,
    recurrent_layers,
    regularization_layers,
    resizing_layers,
)
from keras_coverage.rows import ROWS

__all__ = [
    "ROWS",
    "activations",
    "attention_layers",
    "augmentation_layers",
    "convolution_layers",
    "core_layers",
    "losses",
    "merging_layers",
    "metrics",
    "normalization_layers",
    "optimizers",
    "pooling_layers",
    "preprocessing_layers",
    "recurrent_layers",
    "regularization_layers",
    "resizing_layers",
]
