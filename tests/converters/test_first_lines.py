"""Keras itself puts frames around causes; `edgefl.errors.first_line` without it is in tests/core."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from edgefl import errors


def test_the_frame_that_keras_puts_around_a_cause_is_left_out() -> None:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="expected") as caught:
        model(np.zeros((1, 4)))
    line = errors.first_line(caught.value)
    assert "expected axis -1 of input shape to have value 3" in line
    assert "\x1b" not in line
