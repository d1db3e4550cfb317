"""Decides which of a model's variables the file keeps as variables, and under which names."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from edgefl_converters.models.naming import slot_name, unique
from edgefl_converters.training_step.specification import Specification
from edgefl_converters.training_step.traced_graphs import assigned_inputs
from edgefl_converters.training_step.tracing import Traces

__all__ = ["Variable", "Variables", "classify", "present_value"]

WEIGHT, STATISTIC, STATE, FROZEN, SEED = "weight", "statistic", "state", "frozen", "seed"
REFERENCE, CORRECTION, METRIC = "reference", "correction", "metric"


@dataclass(frozen=True, eq=False)
class Variable:
    """One variable that the traced graphs touch.

    Attributes:
        name: stable and unique.
        keras_path: as Keras calls it.
        role: ``weight`` (the gradient changes it), ``statistic`` (the forward pass does), ``state`` (the optimizer's
            own), ``frozen`` (nothing changes it: a constant), ``seed`` (Keras's random state: an input instead),
            ``reference`` and ``correction`` (set by signatures of their own, for federated algorithms), ``metric``
            (begins at zero in every call and is no part of the file).
        initial: its value.
        shared: False if it never leaves the device.
    """

    name: str
    keras_path: str
    role: str
    initial: NDArray[Any]
    shared: bool = True


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

    def role_of(self, variable: Any) -> str | None:
        """The role of one of Keras's variables; None for one that no graph touches."""
        found = self.by_handle.get(id(variable.value.handle))
        return None if found is None else found.role

    def weights_of(self, terms: Sequence[Variable]) -> tuple[Variable, ...]:
        """The weights that references or corrections belong to."""
        by_name = {variable.name: variable for variable in self.of_role(WEIGHT)}
        return tuple(by_name[term.name.partition("/")[2]] for term in terms)


def present_value(variable: tf.Variable) -> NDArray[Any]:
    """The value that a variable has now, read-only and not copied where NumPy has its type.

    TensorFlow gives a variable that is assigned other memory while somebody looks at this.
    """
    value = variable.read_value()
    try:
        return np.asarray(memoryview(value))
    except ValueError:  # bfloat16 and the like
        return np.asarray(value.numpy())


def classify(specification: Specification, traces: Traces) -> Variables:
    """Sorts everything that the traced graphs captured by what happens to it."""
    captured: dict[int, None] = {}
    assigned: set[int] = set()
    for trace in traces.functions.values():
        own = {inner.name: id(outer) for outer, inner in trace.graph.captures if inner.dtype == tf.resource}
        captured.update(dict.fromkeys(own.values()))
        assigned |= {own[name] for name in assigned_inputs(trace.graph, trace.results) if name in own}
    model, optimizer, federated_terms = specification.model, specification.optimizer, specification.federated_terms
    trainable = {id(variable.value.handle) for variable in model.trainable_variables}
    slots = {id(variable.value.handle) for variable in optimizer.variables}
    beside = {id(variable.handle) for variable in (*federated_terms.reference, *federated_terms.correction)}
    seeds = {id(generator.state.value.handle) for layer in traces.layers for generator in _seed_generators(layer)}
    local = {id(variable.value.handle) for variable in model.variables if id(variable) in specification.local}
    model_variables = [(id(each.value.handle), each.value, each.path) for each in model.variables]
    step = specification.own_step
    metrics = [] if step is None else [each for metric in step.lent.metrics for each in metric.variables]
    known = {handle for handle, _, _ in model_variables} | slots | beside
    known |= {id(each.value.handle) for each in metrics}
    watched = itertools.chain.from_iterable(trace.graph.variables for trace in traces.functions.values())
    raw = {id(each.handle): (id(each.handle), each, each.name.split(":")[0]) for each in watched}
    others = [entry for handle, entry in raw.items() if handle not in known]
    found: list[tuple[int, Variable]] = []

    def add(handle: int, name: str, path: str, role: str, variable: Any) -> None:
        if handle in captured:
            found.append((handle, Variable(name, path, role, present_value(variable), handle not in local)))

    # All of the model's variables take part in the numbering of repeated names, whether they are used or not.
    names = unique([*specification.named.variables, *(specification.names(path) for _, _, path in others)])
    for (handle, variable, path), name in zip(model_variables + others, names, strict=True):
        add(handle, name, path, _role(handle, trainable, seeds, assigned, variable), variable)
    weights = [(each, specification.names.of(each)) for each in model.trainable_variables]
    for each in optimizer.variables:
        handle = id(each.value.handle)
        add(handle, slot_name(each, weights), each.path, STATE if handle in assigned else FROZEN, each.value)
    for role, variables in ((REFERENCE, federated_terms.reference), (CORRECTION, federated_terms.correction)):
        for weight, variable in zip(federated_terms.weights, variables):
            add(id(variable.handle), f"{role}/{specification.named.name_of(weight)}", weight.path, role, variable)
    for each in metrics:
        add(id(each.value.handle), f"metric/{each.path}", each.path, METRIC, each.value)
    unambiguous = unique(variable.name for _, variable in found)
    all_variables = [replace(variable, name=name) for name, (_, variable) in zip(unambiguous, found)]
    return Variables(tuple(all_variables), {handle: each for (handle, _), each in zip(found, all_variables)})


def _role(handle: int, trainable: set[int], seeds: set[int], assigned: set[int], variable: Any) -> str:
    if handle in seeds:
        return SEED
    if handle not in assigned:
        return FROZEN
    if handle in trainable:
        return WEIGHT
    return STATISTIC if variable.dtype == tf.float32 else STATE


def _seed_generators(layer: Any) -> Sequence[Any]:
    return list(getattr(layer, "_seed_generators", ()))
