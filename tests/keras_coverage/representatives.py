"""Rows that do, together, what all rows do: they stand for the others where running all would take too long.

The rule: a row is one of them if its first model has something that no row before it has, in the order of
docs/coverage.md. Something is a TensorFlow op of its forward and backward passes that is lowered, or a way to finalise
a metric: what TensorFlow's converter does by itself is looked at by the slow test of all rows, and by whatever tests a
whole network. Optimizers are looked at among themselves, and with the ops that are kept, which they put together in
their own ways. Which rows that are is written down below; finding it out takes minutes, so that a slow test does.
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
    everywhere: set[tuple[str, str]] = set()
    for section in SECTIONS:
        seen = set() if section == "optimizers" else everywhere
        for api in public(section):
            if api in ROWS and ROWS[api].models and not (has := set(_what_it_has(ROWS[api], section))) <= seen:
                seen |= has
                yield f"{section}.{aliases(section, api)[0]}"


def _what_it_has(row: Row, section: str) -> Iterator[tuple[str, str]]:
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    try:
        built = build(next(iter(row.models.values()))(), batch_size=row.batch_size)
    except EdgeflError:
        return
    for report in built.layers.values():
        yield from (("op", op) for op in (*report.lowered, *(report.kept if section == "optimizers" else ())))
    yield from (("finaliser", metric.finaliser) for metric in built.manifest.metrics)


_NAMES = {
    "layers": """
        Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling3D AdaptiveMaxPooling1D
        AdaptiveMaxPooling3D AlphaDropout AutoContrast CenterCrop ContrastLimitedAdaptiveHistogramEqualization
        Conv1D Conv3D DepthwiseConv1D Discretization ELU EinsumDense GaussianDropout LeakyReLU RandomColorJitter
        RandomPerspective RandomPosterization Resizing SpectralNormalization
    """,
    "losses": """
        Dice Hinge
    """,
    "optimizers": """
        Adadelta Adafactor Adamax Lamb Lion Muon
    """,
    "metrics": """
        AUC Accuracy BinaryIoU CategoricalAccuracy F1Score FalseNegatives Precision PrecisionAtRecall R2Score
        RootMeanSquaredError SparseTopKCategoricalAccuracy
    """,
    "activations": """
        hard_sigmoid selu softsign
    """,
}
REPRESENTATIVES = frozenset(f"{section}.{name}" for section, names in _NAMES.items() for name in names.split())
"""Rows as the document names them, with their section."""
