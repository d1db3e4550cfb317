"""A file holds each weight once."""

from __future__ import annotations

import keras
import pytest

from edgefl_converters.building.building import build
from keras_coverage.architectures import fedavg_cnn, two_nn

OPTIMIZERS = {"sgd": lambda: keras.optimizers.SGD(0.1), "adam": lambda: keras.optimizers.Adam()}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("batch_size", [10, 32])
@pytest.mark.parametrize("network", [two_nn, fedavg_cnn], ids=["2NN", "CNN"])
def test_a_file_is_at_most_its_weights_and_a_little(network, batch_size, optimizer):
    model = network()
    model.compile(OPTIMIZERS[optimizer](), model.loss)
    size = len(build(model, batch_size=batch_size).data)
    assert size <= 1.15 * 4 * model.count_params() + 200_000
