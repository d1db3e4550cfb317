"""Which of a model's variables the file keeps as variables, and under which names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.graphs import assigned_inputs
from edgefl_converters.naming import slot_name, unique
from edgefl_converters.specification import Specification
from edgefl_converters.tracing import Traces

__all__ = ["Variable", "Variables", "classify"]

WEIGHT, STATISTIC, STATE, FROZEN, SEED = "weight", "statistic", "state", "frozen", "seed"


@dataclass(frozen=True, eq=False)
class Variable:
    """One variable that the traced graphs touch.

    Attributes:
        name: stable and unique.
        keras_path: as Keras calls it.
        role: ``weight`` (the gradient changes it), ``statistic`` (the forward pass does), ``state`` (the optimizer's
            own), ``frozen`` (nothing changes it: a constant), ``seed`` (Keras's random state: an input instead).
        initial: its value.
    """

    name: str
    keras_path: str
    role: str
    initial: NDArray[Any]


@dataclass(frozen=True)
class Variables:
    """All variables, with the way back from what a graph captured.

    Attributes:
        all: in the order of the Keras model's variables, then the optimizer's.
        by_handle: identity of a captured handle to the variable.
    """

    all: tuple[Variable, ...]
    by_handle: Mapping[int, Variable]

    def of_role(self, *roles: str) -> tuple[Variable, ...]:
        """The variables of some roles, in order."""
        return tuple(variable for variable in self.all if variable.role in roles)


def classify(specification: Specification, traces: Traces) -> Variables:
    """Sorts everything that the traced graphs captured by what happens to it."""
    captured: dict[int, None] = {}
    assigned: set[int] = set()
    for trace in traces.functions.values():
        own = {inner.name: id(outer) for outer, inner in trace.graph.captures if inner.dtype == tf.resource}
        captured.update(dict.fromkeys(own.values()))
        assigned |= {own[name] for name in assigned_inputs(trace.graph, trace.results) if name in own}
    model, optimizer = specification.model, specification.optimizer
    trainable = {id(variable.value.handle) for variable in model.trainable_variables}
    slots = {id(variable.value.handle) for variable in optimizer.variables}
    seeds = {id(generator.state.value.handle) for layer in traces.layers for generator in _seed_generators(layer)}
    model_variables = [(id(each.value.handle), each.value, each.path) for each in model.variables]
    known = {handle for handle, _, _ in model_variables} | slots
    watched = itertools.chain.from_iterable(trace.graph.variables for trace in traces.functions.values())
    raw = {id(each.handle): (id(each.handle), each, each.name.split(":")[0]) for each in watched}
    others = [entry for handle, entry in raw.items() if handle not in known]
    found: list[tuple[int, str, str, str, NDArray[Any]]] = []
    entries = model_variables + others
    # All of the model's variables take part in the numbering of repeated names, whether they are used or not.
    stable = [specification.names.of(each) for each in model.variables]
    names = unique([*stable, *(specification.names(path) for _, _, path in others)])
    for (handle, variable, path), name in zip(entries, names):
        if handle in captured:
            value = np.asarray(variable.numpy())
            found.append((handle, name, path, _role(handle, trainable, seeds, assigned, value), value))
    weights = [(each, specification.names.of(each)) for each in model.trainable_variables]
    for each in optimizer.variables:
        handle = id(each.value.handle)
        if handle in captured:
            role = STATE if handle in assigned else FROZEN
            name = slot_name(each, weights)
            found.append((handle, name, each.path, role, np.asarray(each.value.numpy())))
    names = unique(name for _, name, *_ in found)
    variables = [Variable(name, path, role, value) for name, (_, _, path, role, value) in zip(names, found)]
    return Variables(tuple(variables), {entry[0]: variable for entry, variable in zip(found, variables)})


def _role(handle: int, trainable: set[int], seeds: set[int], assigned: set[int], value: NDArray[Any]) -> str:
    if handle in seeds:
        return SEED
    if handle not in assigned:
        return FROZEN
    if handle in trainable:
        return WEIGHT
    return STATISTIC if value.dtype == np.float32 else STATE


def _seed_generators(layer: Any) -> Sequence[Any]:
    return list(getattr(layer, "_seed_generators", ()))
