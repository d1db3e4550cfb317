"""The manifest of a model file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

from edgefl.hashing import weights_hash
from edgefl.layout import Parameter, ParameterLayout
from edgefl.manifest import Metric, ModelManifest, Signature, StateVariable, Target
from edgefl.version import __version__
from edgefl_converters.building.index_sizes import index_sizes
from edgefl_converters.emission.micro_batches import row_mixing_layers
from edgefl_converters.models.configuration import configuration
from edgefl_converters.settings.options import fine_tuning_document
from edgefl_converters.training_step.specification import Specification
from edgefl_converters.training_step.tracing import Traces
from edgefl_converters.training_step.variables import FROZEN, STATE, STATISTIC, WEIGHT, Variables

__all__ = ["describe"]


def describe(
    specification: Specification,
    traces: Traces,
    variables: Variables,
    signatures: Mapping[str, Signature],
    buffers: Mapping[str, int],
) -> ModelManifest:
    """Writes down what a model file is; the graph hash is still missing.

    Args:
        specification: what was converted.
        traces: its graphs.
        variables: its variables.
        signatures: of the file.
        buffers: name of each parameter to its buffer.
    """
    parameters = tuple(
        Parameter(
            each.name,
            specification.names(each.keras_path),
            tuple(each.initial.shape),
            each.role,
            each.shared,
            buffers[each.name],
        )
        for each in variables.of_role(WEIGHT, STATISTIC)
    )
    layout = ParameterLayout(parameters)
    initial = {each.name: each.initial for each in variables.of_role(WEIGHT, STATISTIC) if each.shared}
    model = specification.model
    outputs = specification.outputs
    config = configuration(model, specification.optimizer, specification.names)
    return ModelManifest(
        parameters=parameters,
        signatures=dict(signatures),
        inputs=tuple(port.name for port in specification.inputs),
        outputs=tuple(port.name for port in outputs),
        input_structure=_positions(specification.nesting.input_structure, len(specification.inputs)),
        output_structure=_positions(specification.nesting.output_structure, len(outputs)),
        targets=tuple(
            Target(port.name, outputs[port.output].name, port.classes, port.bounds, port.ignored)
            for port in specification.targets
        ),
        index_sizes=index_sizes(traces, specification.inputs),
        batch_size=specification.batch_size,
        further_batch_sizes=tuple(specification.options.further_batch_sizes),
        micro_batch=specification.options.micro_batch if specification.parts > 1 else None,
        mixes_rows=bool(row_mixing_layers(traces, variables) or traces.of_whole_batches),
        of_whole_batches=traces.of_whole_batches,
        loss=_plain(config.loss),
        optimizer=_plain(config.optimizer),
        learning_rate=specification.learning_rate,
        metrics=tuple(
            Metric(
                each.name, each.finaliser, each.states, each.settings, getattr(each.metric, "_direction", None) or ""
            )
            for each in traces.metrics
        ),
        state=tuple(
            StateVariable(each.name, tuple(each.initial.shape), each.initial.dtype.name)
            for each in variables.of_role(STATE)
        ),
        frozen=tuple(specification.names(each.keras_path) for each in variables.of_role(FROZEN)),
        keras_config=_plain(config.model),
        target=specification.options.target,
        fine_tuning=fine_tuning_document(specification.options),
        custom_objects=tuple(sorted(set(_custom_objects(model)))),
        producer={"edgefl": __version__, "keras": keras.__version__, "tensorflow": tf.__version__},
        layout_hash=layout.hash,
        weights_hash=weights_hash(layout.pack(initial)),
    )


def _positions(structure: Any, count: int) -> Any:
    """The nesting as plain lists and dicts of positions; None where it is one tensor or a list of them."""
    positions = keras.tree.pack_sequence_as(structure, list(range(count)))
    if not isinstance(positions, Mapping) and list(keras.tree.flatten(positions)) == list(
        positions if isinstance(positions, (list, tuple)) else [positions]
    ):
        return None
    return json.loads(json.dumps(positions))


def _plain(value: Any) -> Any:
    """A configuration as plain JSON; what JSON cannot say becomes text."""
    return json.loads(json.dumps(value, default=str, allow_nan=True).replace("NaN", "null"))


def _custom_objects(model: Any) -> Iterator[str]:
    for layer in model._flatten_layers():
        module = type(layer).__module__
        if not module.startswith(("keras.", "keras_")):
            yield f"{module}.{type(layer).__qualname__}"
