"""Leads from traced graphs to a TFLite file with all signatures, builtin ops only."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl.errors import UnsupportedModelError
from edgefl.manifest import Signature, TensorSpec
from edgefl_converters.blame.attribution import explain_conversion, explain_emission
from edgefl_converters.emission.constants import LARGE, Constants
from edgefl_converters.emission.micro_batches import emit_parts
from edgefl_converters.emission.walk import EmissionError, Origins, Walk
from edgefl_converters.flatbuffer.quiet import without_remarks
from edgefl_converters.flatbuffer.saved_model import ConverterError, convert_saved_model
from edgefl_converters.memory import give_back
from edgefl_converters.models.naming import signature_keys
from edgefl_converters.stages import stage
from edgefl_converters.training_step.ports import Port
from edgefl_converters.training_step.specification import Specification
from edgefl_converters.training_step.traced_graphs import RANDOM, reachable_op_types
from edgefl_converters.training_step.tracing import Trace, Traces
from edgefl_converters.training_step.variables import (
    CORRECTION,
    FROZEN,
    METRIC,
    REFERENCE,
    SEED,
    STATE,
    STATISTIC,
    WEIGHT,
    Variable,
    Variables,
)

__all__ = ["Assembled", "assemble"]


@dataclass(frozen=True)
class Assembled:
    """Holds what the TFLite converter made.

    Attributes:
        data: the file, not yet renamed; signature tensors have the keys that ``signatures`` says.
        signatures: with names and keys.
        resources: shared name of each variable in the file to the variable.
        origins: where its ops come from.
        large: the constants that placeholders in the file stand for, by their numbers.
    """

    data: bytes
    signatures: Mapping[str, Signature]
    resources: Mapping[str, Variable]
    origins: Origins
    large: Sequence[NDArray[np.float32]]


def assemble(
    specification: Specification,
    traces: Traces,
    variables: Variables,
    origins: Origins | None = None,
    further: Mapping[int, Traces] | None = None,
    large: float = LARGE,
) -> Assembled:
    """Emits every signature over plain variables, and converts.

    Args:
        specification: the model.
        traces: its functions.
        variables: its variables.
        origins: filled with what was emitted, up to a failure.
        further: its functions for further batch sizes.
        large: bytes of a constant from which a placeholder stands for it.

    Raises:
        UnsupportedModelError: an op has no builtin form and no lowering; the message names its layer.
    """
    origins = Origins() if origins is None else origins
    holder = _Holder(variables)
    constants = Constants(large)
    emitter = _Emitter(holder, variables, origins, constants)
    functions: dict[str, Any] = {}
    signatures: dict[str, Signature] = {}

    def add(name: str, inputs: Sequence[Port], body: Callable[..., Mapping[str, tf.Tensor]]) -> None:
        with stage("emitting"):
            functions[name], signatures[name] = _signature(inputs, body)

    train = traces.functions["train"]
    draws = any(RANDOM.search(op_type) for op_type in reachable_op_types(train.graph, train.results))
    for suffix, sized in {"": traces, **{f"_{size}": each for size, each in (further or {}).items()}}.items():
        for name, trace in sized.functions.items():
            inputs = trace.inputs if draws else tuple(port for port in trace.inputs if port.name != "seed")
            try:
                add(f"{name}{suffix}", inputs, emitter.body(name, sized))
            except EmissionError as error:
                raise explain_emission(error, sized) from error
    parameters, everything = variables.of_role(WEIGHT, STATISTIC), variables.of_role(WEIGHT, STATISTIC, STATE)
    add("get_weights", (), holder.reader(parameters))
    add("set_weights", _ports(parameters), holder.writer(parameters))
    add("get_state", (), holder.reader(everything))
    add("set_state", _ports(everything), holder.writer(everything))
    add("reset_optimizer", (), holder.resetter(variables.of_role(STATE)))
    references, corrections = variables.of_role(REFERENCE), variables.of_role(CORRECTION)
    if references:
        add("set_reference", (), holder.copier(variables.weights_of(references), references))
    if corrections:
        add("set_correction", _ports(variables.weights_of(corrections)), holder.writer(corrections))
    data = _convert(holder, functions, traces, origins)
    return Assembled(data, signatures, holder.resources, origins, constants.large)


class _Holder(tf.Module):  # type: ignore[misc]
    """Plain variables in plain lists: what a Keras model holds would be saved without initial values."""

    def __init__(self, variables: Variables) -> None:
        super().__init__()
        kept = variables.of_role(WEIGHT, STATISTIC, STATE, REFERENCE, CORRECTION)
        # The file lists variables by name; numbers keep that the manifest's order, whatever Keras called them.
        names = [f"v{index:05d}" for index in range(len(kept))]
        self.variables_in_order = [
            tf.Variable(np.reshape(variable.initial, _held_shape(variable)), name=name, trainable=False)
            for name, variable in zip(names, kept)
        ]
        self._position = {id(variable): index for index, variable in enumerate(kept)}
        self.resources = dict(zip(names, kept))

    def _of(self, variable: Variable) -> tf.Variable:
        return self.variables_in_order[self._position[id(variable)]]

    def read(self, variable: Variable) -> tf.Tensor:
        """The current value, in the shape that the traced graph knows."""
        held = self._of(variable).read_value()
        return held if variable.initial.shape else held[0]

    def assign(self, variable: Variable, value: tf.Tensor) -> None:
        """Gives a variable a new value."""
        self._of(variable).assign(value if variable.initial.shape else tf.expand_dims(value, 0))

    def reader(self, variables: Sequence[Variable]) -> Callable[..., Mapping[str, tf.Tensor]]:
        return lambda: {variable.name: self._of(variable).read_value() for variable in variables}

    def writer(self, variables: Sequence[Variable]) -> Callable[..., Mapping[str, tf.Tensor]]:
        def write(*tensors: tf.Tensor) -> Mapping[str, tf.Tensor]:
            for variable, tensor in zip(variables, tensors):
                self._of(variable).assign(tensor)
            return _status()

        return write

    def copier(
        self, sources: Sequence[Variable], targets: Sequence[Variable]
    ) -> Callable[..., Mapping[str, tf.Tensor]]:
        def copy() -> Mapping[str, tf.Tensor]:
            for source, target in zip(sources, targets):
                self._of(target).assign(self._of(source).read_value())
            return _status()

        return copy

    def resetter(self, variables: Sequence[Variable]) -> Callable[..., Mapping[str, tf.Tensor]]:
        def reset() -> Mapping[str, tf.Tensor]:
            for variable in variables:
                self.assign(variable, tf.constant(variable.initial))
            return _status()

        return reset


class _Emitter:
    def __init__(self, holder: _Holder, variables: Variables, origins: Origins, constants: Constants) -> None:
        self._holder, self._constants = holder, constants
        self._variables = variables
        self._origins = origins

    def body(self, name: str, traces: Traces) -> Callable[..., Mapping[str, tf.Tensor]]:
        """A traced function over the holder's variables; only ``train`` assigns any, whatever others would."""
        trace = traces.functions[name]

        def run(*tensors: tf.Tensor) -> Mapping[str, tf.Tensor]:
            # Only a seed that nothing draws by may be missing, and it comes last.
            given = {port.name: tensor for port, tensor in zip(trace.inputs, tensors)}
            walk = Walk(self._read, self._origins, given.get("seed"), self._constants)

            def emit(trace: Trace, given: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
                return self._emit(walk, trace, given)

            results = emit_parts(name, traces, walk, emit, given) if traces.parts else emit(trace, given)
            for variable in walk.assigned if name == "train" else ():
                if variable.role not in (SEED, METRIC):
                    self._holder.assign(variable, walk.values[variable])
            return {output: results[output] for output in trace.outputs}

        return run

    def _emit(self, walk: Walk, trace: Trace, given: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        explicit = zip(trace.inputs, trace.graph.inputs[: len(trace.inputs)])
        bound: dict[str, Any] = {inner.name: given[port.name] for port, inner in explicit if port.name in given}
        for outer, inner in trace.graph.captures:
            if inner.dtype == tf.resource:
                bound[inner.name] = Walk.handle(self._variable(outer, inner))
            else:
                bound[inner.name] = tf.constant(outer.numpy())
        return dict(zip(trace.outputs, walk.emit(trace.graph, bound, trace.results)))

    def _variable(self, outer: Any, inner: Any) -> Variable:
        variable = self._variables.by_handle.get(id(outer))
        if variable is None:
            raise UnsupportedModelError(
                f"The model uses a resource that is not a variable ({inner.name!r}), such as a lookup table.",
                hint="Do lookups and text processing before the model, and feed it numbers.",
            )
        return variable

    def _read(self, variable: Variable) -> tf.Tensor:
        if variable.role in (SEED, METRIC):
            return tf.zeros(variable.initial.shape, variable.initial.dtype)
        if variable.role == FROZEN:
            return self._constants.tensor(variable.initial, key=id(variable))
        return self._holder.read(variable)


def _status() -> Mapping[str, tf.Tensor]:
    return {"status": tf.zeros([1], tf.int32)}


def _ports(variables: Sequence[Variable]) -> tuple[Port, ...]:
    return tuple(Port(each.name, _held_shape(each), each.initial.dtype.name) for each in variables)


def _held_shape(variable: Variable) -> tuple[int, ...]:
    """The shape in which a variable is kept, goes in and comes out: never without dimensions.

    ai-edge-litert on aarch64 dies of inputs without dimensions, and tflite-runtime 2.14 takes a variable without
    dimensions for one of unknown shape, after which it leaves the whole subgraph to its slow kernels.
    """
    return variable.initial.shape or (1,)


def _signature(inputs: Sequence[Port], body: Callable[..., Mapping[str, tf.Tensor]]) -> tuple[Any, Signature]:
    keys = signature_keys(port.name for port in inputs)
    named: dict[str, str] = {}

    def run(*tensors: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = body(*tensors)
        named.update(zip(outputs, signature_keys(outputs)))
        return {named[name]: tensor for name, tensor in outputs.items()}

    specs = [tf.TensorSpec(port.shape, port.dtype, name=key) for port, key in zip(inputs, keys)]
    function = tf.function(run, autograph=False).get_concrete_function(*specs)
    outputs = tuple(
        TensorSpec(name, key, tuple(tensor.shape), tensor.dtype.name)
        for name, key in named.items()
        for tensor in (function.structured_outputs[key],)
    )
    given = tuple(TensorSpec(port.name, key, port.shape, port.dtype) for port, key in zip(inputs, keys))
    return function, Signature(given, outputs)


def _convert(holder: _Holder, functions: Mapping[str, Any], traces: Traces, origins: Origins) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        with stage("saving"), without_remarks():  # of where the temporary folder is
            tf.saved_model.save(holder, folder, signatures=dict(functions))
        try:
            with stage("converting"):
                data = convert_saved_model(folder, list(functions))
        except ConverterError as error:
            # The converter prints the whole graph into its message; what matters of it is in ours.
            raise explain_conversion(error, origins, traces) from None
    give_back()  # half of the memory of all that comes before
    return data
