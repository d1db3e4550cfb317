"""The harness that the lowerings are checked with notices wrong ones."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from edgefl_converters.emission.registry import LOWERINGS
from interpreters import EXPECTED


def relu_gradient(x, dy):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.nn.relu(x)
    return tape.gradient(y, x, dy)


def test_a_lowering_that_is_wrong_by_a_ten_thousandth_is_noticed(kernel_parity, monkeypatch):
    right = LOWERINGS["ReluGrad"]
    monkeypatch.setitem(LOWERINGS, "ReluGrad", lambda *given: [right(*given)[0] * 1.0001])
    x = np.linspace(-1, 1, 9).astype(np.float32)
    kernel_parity.add("relu", relu_gradient, x, x)
    with pytest.raises(AssertionError, match=f"{len(EXPECTED)} of {len(EXPECTED)} differ"):
        kernel_parity.check()


def test_a_collection_without_cases_proves_nothing(kernel_parity):
    with pytest.raises(AssertionError, match="no cases"):
        kernel_parity.check()
