"""Rows that do, together, what all rows do: they stand for the others where running all would take too long.

The rule: a row is one of them if its first model has something that no row before it in its section has, in the order
of docs/coverage.md. Something is a TensorFlow op of its forward and backward passes, kept or lowered; a way to finalise
a metric; a module of this package; a refusal in such a module. Which rows that are is written down below; finding
it out takes minutes, so that a slow test does.
"""

from __future__ import annotations

from collections.abc import Iterator

import keras

from edgefl.errors import EdgeflError
from edgefl_converters.building.building import build
from keras_coverage.families import ROWS
from keras_coverage.public import SECTIONS, aliases, public
from keras_coverage.rows import Row

__all__ = ["REPRESENTATIVES", "found_anew"]


def found_anew() -> Iterator[str]:
    """What `REPRESENTATIVES` has to be, by the rule."""
    for section in SECTIONS:
        seen: set[tuple[str, str]] = set()
        for api in public(section):
            if api in ROWS and ROWS[api].models and not (has := set(_what_it_has(ROWS[api]))) <= seen:
                seen |= has
                yield f"{section}.{aliases(section, api)[0]}"


def _what_it_has(row: Row) -> Iterator[tuple[str, str]]:
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    make = next(iter(row.models.values()))
    yield "module", make.__module__
    try:
        built = build(make(), batch_size=row.batch_size)
    except EdgeflError:
        yield "module that refuses", make.__module__
        return
    for report in built.layers.values():
        yield from (("op", op) for op in (*report.kept, *report.lowered))
    yield from (("finaliser", metric.finaliser) for metric in built.manifest.metrics)


_NAMES = {
    "layers": """
        Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling3D AdaptiveMaxPooling1D
        AdaptiveMaxPooling3D Add AdditiveAttention AlphaDropout Attention AugMix AutoContrast BatchNormalization
        Bidirectional CategoryEncoding CenterCrop ContrastLimitedAdaptiveHistogramEqualization Conv1D Conv3D
        DepthwiseConv1D Discretization ELU EinsumDense Embedding GaussianDropout GroupNormalization
        GroupQueryAttention LeakyReLU Masking MelSpectrogram Minimum RandomColorJitter RandomCrop RandomErasing
        RandomGaussianBlur RandomPerspective RandomPosterization RandomRotation Resizing ReversibleEmbedding
        STFTSpectrogram SpectralNormalization
    """,
    "losses": """
        BinaryCrossentropy BinaryFocalCrossentropy CategoricalCrossentropy CategoricalFocalCrossentropy
        CategoricalGeneralizedCrossEntropy CategoricalHinge CosineSimilarity Hinge Huber LogCosh
        SparseCategoricalCrossentropy
    """,
    "optimizers": """
        Adadelta Adafactor Adamax Lamb Lion LossScaleOptimizer Muon
    """,
    "metrics": """
        AUC Accuracy BinaryIoU CategoricalAccuracy CategoricalHinge CosineSimilarity F1Score FalseNegatives
        Hinge IoU KLDivergence LogCoshError Mean MeanMetricWrapper PearsonCorrelation Precision
        PrecisionAtRecall R2Score RootMeanSquaredError SparseTopKCategoricalAccuracy
    """,
    "activations": """
        celu elu gelu glu hard_shrink hard_sigmoid leaky_relu log_sigmoid log_softmax mish relu selu soft_shrink
        softmax softsign sparse_plus sparsemax squareplus
    """,
}
REPRESENTATIVES = frozenset(f"{section}.{name}" for section, names in _NAMES.items() for name in names.split())
"""Rows as the document names them, with their section."""
