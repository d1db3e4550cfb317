"""Puts large frozen weights into a converted file, where TensorFlow's converter was given placeholders for them.

A placeholder is a RANDOM_UNIFORM op with a seed of its own (`emission.constants`), which the converter neither computes
nor copies. What it puts behind one, such as the TRANSPOSE of a convolution's filter, it would have computed of a
constant; here it is computed in numpy, and stored once, however many signatures need it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tensorflow.lite.python import schema_py_generated as schema

from edgefl_converters.flatbuffer.constant_folding import FOLDED, MOVES
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.graph_index import GraphIndex
from edgefl_converters.flatbuffer.object_form import append

__all__ = ["SEED", "fill_placeholders"]

SEED = 0x65646765
"""The first seed of every placeholder; the second one is the number of what it stands for, counted from 1."""

_Operator = schema.BuiltinOperator
_NONE = schema.ActivationFunctionType.NONE
_TYPES = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.INT32: np.int32, schema.TensorType.INT64: np.int64}
_OUTPUT_CHANNELS = {_Operator.CONV_2D: 0, _Operator.DEPTHWISE_CONV_2D: 3}
"""The axis of a convolution's filter that its output's channels are counted by."""

_COMMUTATIVE = frozenset({_Operator.ADD, _Operator.MAXIMUM, _Operator.MINIMUM, _Operator.MUL})


class _Known(NamedTuple):
    """A value that is known: the key of its bytes, and its shape."""

    key: Any
    shape: tuple[int, ...]


def fill_placeholders(file: FlatModel, values: Sequence[NDArray[np.float32]]) -> None:
    """Replaces placeholders, and what follows from them alone, by constants.

    Args:
        file: changed in place; its buffers refer to the values, they are not copied.
        values: what the placeholders stand for, by their numbers.
    """
    if values:
        store = _Store(file, values)
        for subgraph in file.subgraphs:
            _Filling(store, subgraph)
        file.drop_unused_codes()


class _Store:
    """The values of a file, told by what they were computed from: each is computed and stored once."""

    def __init__(self, file: FlatModel, values: Sequence[NDArray[np.float32]]) -> None:
        self.file, self._values = file, values
        self._made: dict[Any, NDArray[Any]] = {}
        self._buffers: dict[Any, int] = {}

    def placeholder(self, operator: Any) -> _Known | None:
        """Returns what a placeholder stands for; None for any other op."""
        if self.file.builtin(operator) != _Operator.RANDOM_UNIFORM or operator.builtinOptions.seed != SEED:
            return None
        number = int(operator.builtinOptions.seed2) - 1
        return _Known(("value", number), self._values[number].shape)

    def constant(self, subgraph: Any, tensor: int) -> _Known | None:
        """A constant that is in the file already; None for any other tensor."""
        described = subgraph.tensors[tensor]
        data = self.file.model.buffers[described.buffer].data
        if data is None or not len(data) or described.type not in _TYPES:
            return None
        values = np.asarray(data, np.uint8).view(_TYPES[described.type])
        key = ("constant", described.type, values.tobytes())
        self._made.setdefault(key, values)
        return _Known(key, tuple(map(int, described.shape if described.shape is not None else ())))

    def array(self, known: _Known) -> NDArray[Any]:
        """The numbers themselves."""
        key = known.key
        values: NDArray[Any] = self._values[key[1]] if key[0] == "value" else self._made[key]
        return values.reshape(known.shape)

    def computed(self, key: Any, make: Any) -> Any:
        """The key, under which an array is kept that is made if it is not there yet."""
        if key not in self._made and key not in self._buffers:
            self._made[key] = np.ascontiguousarray(make())
        return key

    def buffer(self, known: _Known) -> int:
        """The buffer that holds a value."""
        if known.key not in self._buffers:
            self._buffers[known.key] = self.file.add_buffer(np.ascontiguousarray(self.array(known)))
        return self._buffers[known.key]


class _Filling:
    """Fills the placeholders of one subgraph."""

    def __init__(self, store: _Store, subgraph: Any) -> None:
        self._store, self._subgraph, self._file = store, subgraph, store.file
        self._known: dict[int, _Known] = {}
        self._constants: dict[int, _Known | None] = {}
        subgraph.operators = [each for each in subgraph.operators if not self._is_computed(each)]
        if self._known:
            self._scale_filters()
            for operator in subgraph.operators:
                self._turn_factors(operator)
                self._put_constant_last(operator)
            used = {int(each) for operator in subgraph.operators for each in operator.inputs}
            for tensor in sorted(used | set(map(int, subgraph.outputs))):
                if tensor in self._known:
                    subgraph.tensors[tensor].buffer = store.buffer(self._known[tensor])

    def _shape(self, tensor: int) -> tuple[int, ...]:
        shape = self._subgraph.tensors[tensor].shape
        return () if shape is None else tuple(map(int, shape))

    def _value(self, tensor: int) -> _Known | None:
        """Finds out what is known of a tensor, from a placeholder or as a constant of the file."""
        if tensor in self._known:
            return self._known[tensor]
        if tensor not in self._constants:
            self._constants[tensor] = self._store.constant(self._subgraph, tensor)
        return self._constants[tensor]

    # Ops on constants alone.

    def _is_computed(self, operator: Any) -> bool:
        """Notes what an op makes of placeholders and constants alone; False where it is left to the runtimes."""
        placeholder = self._store.placeholder(operator)
        if placeholder is not None:
            self._known[int(operator.outputs[0])] = placeholder
            return True
        inputs = [int(each) for each in operator.inputs]
        if not any(each in self._known for each in inputs):
            return False
        kind, outputs = self._file.builtin(operator), [int(each) for each in operator.outputs]
        if kind in MOVES:
            self._known[outputs[0]] = _Known(self._known[inputs[0]].key, self._shape(outputs[0]))
            return True
        given = [self._value(each) for each in inputs]
        if kind not in FOLDED or any(each is None for each in given) or _activation(operator) != _NONE:
            return False
        known = [each for each in given if each is not None]
        if sum(math.prod(self._shape(each)) for each in outputs) > sum(math.prod(each.shape) for each in known):
            return False
        source = (kind, _options(operator), tuple(known))
        results: list[NDArray[Any]] = []
        for place, output in enumerate(outputs):

            def make(place: int = place) -> NDArray[Any]:
                results.extend(() if results else FOLDED[kind](operator.builtinOptions, self._arrays(known)))
                return results[place]

            self._known[output] = _Known(self._store.computed((source, place), make), self._shape(output))
        return True

    def _arrays(self, known: Sequence[_Known]) -> list[NDArray[Any]]:
        return [self._store.array(each) for each in known]

    # Normalisation behind a convolution.

    def _scale_filters(self) -> None:
        """Multiplies what a convolution is multiplied with into its filter, and adds what is added to its bias."""
        index = GraphIndex(self._subgraph)
        merged: set[int] = set()
        for operator in self._subgraph.operators:
            if self._file.builtin(operator) not in _OUTPUT_CHANNELS or int(operator.inputs[1]) not in self._known:
                continue
            for follower in self._followers(index, operator):
                self._merge(operator, follower)
                merged.add(id(follower))
        self._subgraph.operators = [each for each in self._subgraph.operators if id(each) not in merged]

    def _followers(self, index: GraphIndex, convolution: Any) -> Iterator[Any]:
        """The ops behind a convolution that it can do itself; each is looked for when the one before it is merged."""
        while _activation(convolution) == _NONE:
            output = int(convolution.outputs[0])
            readers = index.readers(output)
            if len(readers) != 1 or output in map(int, self._subgraph.outputs):
                return
            (follower,) = readers
            if self._file.builtin(follower) not in (_Operator.MUL, _Operator.ADD) or len(convolution.inputs) < 3:
                return
            others = [int(each) for each in follower.inputs if int(each) != output]
            factor = self._value(others[0]) if len(others) == 1 else None
            channels = self._shape(output)[-1]
            if factor is None or factor.shape not in ((), (1,), (channels,), (1, 1, 1, channels)):
                return
            if self._value(int(convolution.inputs[2])) is None or self._shape(int(follower.outputs[0])) != self._shape(
                output
            ):
                return
            yield follower

    def _merge(self, convolution: Any, follower: Any) -> None:
        image, kernel, bias = (int(each) for each in convolution.inputs)
        (other,) = (int(each) for each in follower.inputs if int(each) != int(convolution.outputs[0]))
        number, filters, shift = self._value(other), self._known[kernel], self._value(bias)
        assert number is not None
        assert shift is not None
        numbers = self._store.array(number).reshape(-1)
        if self._file.builtin(follower) == _Operator.ADD:
            shift_made = self._store.array(shift) + numbers
        else:
            shift_made = self._store.array(shift) * numbers
            along = [1] * len(filters.shape)
            along[_OUTPUT_CHANNELS[self._file.builtin(convolution)]] = -1
            key = self._store.computed(
                ("scaled", filters, number), lambda: self._store.array(filters) * numbers.reshape(along)
            )
            kernel = self._added(kernel, _Known(key, filters.shape))
        shift_made = np.ascontiguousarray(shift_made, np.float32)
        bias = self._file.constant(
            self._subgraph, schema.TensorType.FLOAT32, list(shift_made.shape), shift_made.tobytes()
        )
        convolution.inputs, convolution.outputs = [image, kernel, bias], follower.outputs
        convolution.builtinOptions.fusedActivationFunction = _activation(follower)

    # Products.

    def _turn_factors(self, operator: Any) -> None:
        """Stores a factor as a product needs it: the converter leaves transposing what it does not know to the op."""
        if self._file.builtin(operator) != _Operator.BATCH_MATMUL:
            return
        for place, name in enumerate(("adjX", "adjY")):
            tensor = int(operator.inputs[place])
            if tensor in self._known and getattr(operator.builtinOptions, name):
                value = self._known[tensor]
                shape = (*value.shape[:-2], value.shape[-1], value.shape[-2])
                key = self._store.computed(
                    ("turned", value), lambda value=value: np.swapaxes(self._store.array(value), -1, -2)
                )
                inputs = [int(each) for each in operator.inputs]
                inputs[place] = self._added(tensor, _Known(key, shape))
                operator.inputs = inputs
                setattr(operator.builtinOptions, name, False)

    def _put_constant_last(self, operator: Any) -> None:
        """Exchanges the inputs of a sum or product whose first one is constant, as the converter does."""
        if self._file.builtin(operator) in _COMMUTATIVE and int(operator.inputs[0]) in self._known:
            operator.inputs = [int(operator.inputs[1]), int(operator.inputs[0])]

    def _added(self, like: int, value: _Known) -> int:
        """Adds a tensor with a known value and returns its index."""
        tensor = schema.TensorT()
        tensor.type, tensor.shape = self._subgraph.tensors[like].type, list(value.shape)
        tensor.buffer = 0
        index = append(self._subgraph.tensors, tensor)
        self._known[index] = value
        return index


def _options(operator: Any) -> Any:
    options = operator.builtinOptions
    return () if options is None else tuple(sorted((name, str(each)) for name, each in vars(options).items()))


def _activation(operator: Any) -> int:
    return int(getattr(operator.builtinOptions, "fusedActivationFunction", _NONE) or _NONE)
