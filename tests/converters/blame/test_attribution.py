"""Errors carry the layer and the ops that are to blame as values, not only in their text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgefl_converters.blame.attribution import explain_conversion, explain_emission
from edgefl_converters.emission.walk import EmissionError, Origin, Origins


class Conv:
    name = "conv"


@pytest.fixture
def traces():
    return SimpleNamespace(layers=[Conv()], functions={})


def test_an_op_that_cannot_be_emitted_is_named_with_its_layer(traces):
    op = SimpleNamespace(type="Erfinv", name="model/edgefl_layer_0/Erfinv")

    found = explain_emission(EmissionError(op, ValueError("no such form")), traces)

    assert (found.layer, found.ops) == ("conv", ("Erfinv",))
    assert "Erfinv of layer 'conv' (Conv) cannot be converted" in found.message


def test_ops_that_the_converter_refuses_are_named_with_the_layer_of_the_first(traces):
    origins = Origins()
    names = [
        origins.add(Origin("Erfinv", "edgefl_layer_0/Erfinv", lowered=False)),
        origins.add(Origin("Qr", "edgefl_stage_loss/Qr", lowered=False)),
    ]

    found = explain_conversion(Exception("\n".join(f'loc("{name}"): error' for name in names)), origins, traces)

    assert (found.layer, found.ops) == ("conv", ("Erfinv", "Qr"))


def test_an_error_that_names_no_op_blames_nobody(traces):
    found = explain_conversion(Exception("out of luck"), Origins(), traces)

    assert (found.layer, found.ops) == (None, ())
