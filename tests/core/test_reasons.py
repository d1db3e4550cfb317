"""The line of an error that tells the cause."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from edgefl.reasons import reason


def test_the_frame_that_keras_puts_around_a_cause_is_left_out():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="expected") as caught:
        model(np.zeros((1, 4)))
    assert "expected axis -1 of input shape to have value 3" in reason(caught.value)
    assert "\x1b" not in reason(caught.value)


def test_an_error_without_words_is_called_by_its_name():
    assert reason(KeyError()) == "KeyError"
    assert reason(ValueError("Exception encountered when calling Dense.call().\n\nWrong.")) == "Wrong."
