"""A file holds each weight once."""

from __future__ import annotations

import itertools

import keras
import pytest

from edgefl_converters.building.building import build
from keras_coverage.architectures import fedavg_cnn, two_nn

NETWORKS = {"2NN": two_nn, "CNN": fedavg_cnn}
OPTIMIZERS = {"sgd": lambda: keras.optimizers.SGD(0.1), "adam": lambda: keras.optimizers.Adam()}


FAST = {("2NN", 32, "sgd"), ("CNN", 10, "adam")}
"""Each network, batch and optimizer once."""


@pytest.mark.parametrize(
    ("network", "batch_size", "optimizer"),
    [
        pytest.param(*case, marks=[] if case in FAST else pytest.mark.slow)
        for case in itertools.product(NETWORKS, [10, 32], OPTIMIZERS)
    ],
)
def test_a_file_is_at_most_its_weights_and_a_little(network, batch_size, optimizer):
    model = NETWORKS[network]()
    model.compile(OPTIMIZERS[optimizer](), model.loss)
    size = len(build(model, batch_size=batch_size).data)
    assert size <= 1.15 * 4 * model.count_params() + 200_000
