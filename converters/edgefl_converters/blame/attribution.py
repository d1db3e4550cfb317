"""Errors that name the Keras layer and the op that are to blame, and say what to do."""

from __future__ import annotations

import re
from typing import Any

from edgefl.errors import UnsupportedModelError, first_line, listed
from edgefl_converters.blame.suggestions import replacement
from edgefl_converters.emission.walk import EmissionError, Origins
from edgefl_converters.training_step.makers import layer_of
from edgefl_converters.training_step.tracing import Traces

__all__ = ["describe_layer", "describe_origin", "explain_conversion", "explain_emission"]


def describe_layer(layer: Any) -> str:
    """Tells how a layer is called in words: ``layer 'conv' (Conv2D)``."""
    return f"layer {layer.name!r} ({type(layer).__name__})"


def describe_origin(op_name: str, traces: Traces) -> str:
    """Says in words what made an op: ``layer 'conv' (Conv2D)``, ``the optimizer``."""
    maker = layer_of(op_name)
    if isinstance(maker, int):
        return describe_layer(traces.layers[maker])
    return f"the {maker}" if maker else "the training step"


def _layer_name(op_name: str, traces: Traces) -> str | None:
    maker = layer_of(op_name)
    return str(traces.layers[maker].name) if isinstance(maker, int) else None


def _advice(op_name: str, op_type: str, traces: Traces) -> str:
    maker = layer_of(op_name)
    layer = traces.layers[maker] if isinstance(maker, int) else None
    inference = getattr(traces, "functions", {}).get("infer")
    return replacement(
        describe_origin(op_name, traces),
        is_layer=layer is not None,
        has_weights=bool(getattr(layer, "weights", None)),
        in_inference=inference is not None
        and any(op.type == op_type and layer_of(op.name) == maker for op in inference.graph.get_operations()),
    )


def explain_emission(error: EmissionError, traces: Traces) -> UnsupportedModelError:
    """An op that the walk could not emit."""
    return UnsupportedModelError(
        f"{error.op.type} of {describe_origin(error.op.name, traces)} cannot be converted in this form: {error}.",
        hint=_advice(error.op.name, error.op.type, traces),
        layer=_layer_name(error.op.name, traces),
        ops=[error.op.type],
    )


def explain_conversion(error: Exception, origins: Origins, traces: Traces) -> UnsupportedModelError:
    """Ops that the TFLite converter refused: it knows them by the numbers that the walk gave them."""
    text = str(error)
    blamed: dict[str, None] = {}
    layers: list[str] = []
    ops: dict[str, None] = {}
    advice = None
    for line in text.splitlines():
        found = re.search(r"'tf\.(\w+)' op", line)
        for origin in origins.named(line):
            op_type = found.group(1) if found else origin.op_type
            blamed[f"{describe_origin(origin.op_name, traces)}: {op_type}"] = None
            ops[op_type] = None
            advice = advice or _advice(origin.op_name, origin.op_type, traces)
            layers += filter(None, [_layer_name(origin.op_name, traces)])
    if blamed:
        message = f"No builtin TFLite form for {listed(blamed, 4, '; ')}."
    else:
        told = next((line.strip() for line in text.splitlines() if "error:" in line), first_line(error))
        message = f"The TFLite converter refuses the model: {told[:300]}."
    return UnsupportedModelError(message, hint=advice, layer=layers[0] if layers else None, ops=list(ops))
