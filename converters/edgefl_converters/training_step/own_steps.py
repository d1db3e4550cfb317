"""Finds out how a model that trains in its own way wants to be called, by trying: with which targets and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from edgefl.errors import EdgeflError, UnsupportedModelError, first_line
from edgefl_converters.settings.input_shapes import TargetShape, target_shapes
from edgefl_converters.training_step.keras_rewrites.rewriting import WRITTEN_OUT, rewritten_keras
from edgefl_converters.training_step.own_metrics import LOSS, OwnMetric, own_metric
from edgefl_converters.training_step.own_step import Lent, OwnStep, Ran, named_owner, packed
from edgefl_converters.training_step.ports import Nesting, Port, target_name
from edgefl_converters.training_step.traced_graphs import in_order

__all__ = ["own_step_of"]


@dataclass(frozen=True)
class _Tried:
    """A step that could be traced.

    Attributes:
        targets: that it was given.
        packing: how it was called.
        lent: to the model meanwhile.
        uses_targets: whether anything depends on them.
        uses_weights: likewise.
        rank: of what it took a gradient of.
        metrics: what it returned beside the loss.
    """

    targets: tuple[Port, ...]
    packing: str
    lent: Lent
    uses_targets: bool
    uses_weights: bool
    rank: int
    metrics: tuple[OwnMetric, ...]


def own_step_of(
    model: Any,
    optimizer: Any,
    nesting: Nesting,
    compiled: tuple[Port, ...],
    taken: set[str],
    target_shape: TargetShape | None = None,
) -> tuple[tuple[Port, ...], OwnStep]:
    """A model's own way to train, and the targets that it takes.

    Args:
        model: compiled and built.
        optimizer: a fresh copy of the compiled one.
        nesting: of what it takes and gives.
        compiled: the targets of compiled losses; none where it was compiled without.
        taken: names that no target may have.
        target_shape: of rows of targets, where somebody said it.

    Raises:
        UnsupportedModelError: its training step cannot be traced, whatever it is given, or no file can take it.
    """
    owner, failures = named_owner(model), []
    found: _Tried | None = None
    for targets in [compiled] if compiled else _candidates(nesting, taken, target_shape):
        for packing in ("xy", "xyw") if targets else ("x",):
            if found is not None:
                break
            try:
                found = _traced(model, optimizer, nesting, targets, packing, owner)
            except EdgeflError:
                raise
            except Exception as error:  # of any kind: it is the user's code
                failures.append(error)
    if found is None:
        raise UnsupportedModelError(
            f"{owner} cannot be traced as one TensorFlow graph: {first_line(failures[0]).rstrip('.')}.",
            hint="It must run in model.fit, without run_eagerly, on a batch of "
            + ", ".join(f"{port.name} {port.shape}" for port in nesting.inputs)
            + " and targets of the output's shape or class numbers; give `target_shape` where the targets are others.",
        ) from failures[0]
    if found.targets and not found.uses_targets:
        found = _or(found, lambda: _traced(model, optimizer, nesting, (), "x", owner))
    targets = found.targets
    if found.packing == "xy":
        weighted = _or(found, lambda: _traced(model, optimizer, nesting, targets, "xyw", owner))
        found = weighted if weighted.uses_weights and weighted.rank == found.rank else found
    test_packing, metrics = _tested(model, nesting, found, owner)
    return found.targets, OwnStep(owner, found.packing, test_packing, metrics, found.lent)


def _or(found: _Tried, other: Callable[[], _Tried]) -> _Tried:
    """Another way to call the step, if there is one."""
    try:
        return other()
    except Exception:  # of any kind: it is the user's code, and the way that was found already stays
        return found


def _candidates(nesting: Nesting, taken: set[str], target_shape: TargetShape | None) -> Iterator[tuple[Port, ...]]:
    """Targets as they were said, or like the outputs, class numbers for each row or in a column, and none."""

    def named(index: int, shape: tuple[int, ...], dtype: str) -> Port:
        return Port(target_name(nesting.outputs, index, taken), shape, dtype, index)

    shapes = [output.shape for output in nesting.outputs]
    names = {output.name: target_name(nesting.outputs, index, taken) for index, output in enumerate(nesting.outputs)}
    said = target_shapes(target_shape, names)
    if said:
        for dtype in ("float32", "int32"):
            yield tuple(
                named(index, (output.shape[0], *said[output.name]), dtype)
                for index, output in enumerate(nesting.outputs)
                if output.name in said
            )
        return
    yield tuple(named(index, shape, "float32") for index, shape in enumerate(shapes))
    if all(len(shape) > 1 for shape in shapes):
        yield tuple(named(index, shape[:-1], "int32") for index, shape in enumerate(shapes))
        yield tuple(named(index, (*shape[:-1], 1), "int32") for index, shape in enumerate(shapes))
    yield ()


def _traced(
    model: Any, optimizer: Any, nesting: Nesting, targets: tuple[Port, ...], packing: str, owner: str
) -> _Tried:
    lent = Lent(
        model,
        optimizer,
        nesting.of_targets(targets, [port.symbolic for port in targets]),
        nesting.symbolic_outputs(),
    )
    ran: list[Ran] = []

    def step(inputs: Any, given: Any, weight: tf.Tensor) -> list[tf.Tensor]:
        found = lent.train(packed(packing, inputs, given, weight), _applied)
        ran.append(found)
        if found.loss is None:
            raise UnsupportedModelError(
                f"{owner} takes gradients of nothing that is a loss.",
                hint="Let it take tape.gradient(loss, self.trainable_variables), and return {'loss': loss}.",
            )
        return [found.loss]

    uses_targets, uses_weights = _function(step, nesting, targets)
    return _Tried(targets, packing, lent, uses_targets, uses_weights, ran[0].rank, _metrics(owner, ran[0]))


def _applied(gradients: Sequence[Any], variables: Sequence[Any]) -> None:
    """Lets a change of the variables depend on the gradients, as an optimizer would."""
    for gradient, variable in zip(gradients, variables):
        if gradient is not None:
            variable.assign(variable - tf.convert_to_tensor(gradient))


def _metrics(owner: str, ran: Ran) -> tuple[OwnMetric, ...]:
    return tuple(
        own_metric(owner, name, value, ran.results.get(id(value))) for name, value in ran.logs.items() if name != LOSS
    )


def _tested(model: Any, nesting: Nesting, found: _Tried, owner: str) -> tuple[str | None, tuple[OwnMetric, ...]]:
    """Tells in what packing ``test_step`` can be called, and all metrics of both steps."""
    for packing in [found.packing] if found.packing != "xyw" else ["xyw", "xy"]:
        ran = _tested_with(packing, nesting, found)
        if ran is not None:
            known = {each.name for each in found.metrics}
            new = [each for each in _metrics(f"{type(model).__name__}.test_step", ran) if each.name not in known]
            return packing, (*found.metrics, *new)
    return None, found.metrics


def _tested_with(packing: str, nesting: Nesting, found: _Tried) -> Ran | None:
    ran: list[Ran] = []

    def step(inputs: Any, given: Any, weight: tf.Tensor) -> list[tf.Tensor]:
        ran.append(found.lent.test(packed(packing, inputs, given, weight)))
        return [] if ran[0].loss is None else [ran[0].loss]

    try:
        _function(step, nesting, found.targets)
    except EdgeflError:
        raise
    except Exception:  # Keras has no loss to evaluate with, or the user's code fails
        return None
    return ran[0] if ran[0].loss is not None else None


def _function(step: Callable[..., list[tf.Tensor]], nesting: Nesting, targets: Sequence[Port]) -> tuple[bool, bool]:
    """Traces a step, and tells whether it uses targets and weights."""
    rows = nesting.inputs[0].shape[0]
    ports = (*nesting.inputs, *targets, Port("sample_weight", (rows,), "float32"))
    specs = [tf.TensorSpec(port.shape, port.dtype) for port in ports]
    first, last = len(nesting.inputs), len(nesting.inputs) + len(targets)

    def run(*tensors: tf.Tensor) -> list[tf.Tensor]:
        return step(nesting.of_inputs(tensors[:first]), nesting.of_targets(targets, tensors[first:last]), tensors[last])

    with rewritten_keras(*WRITTEN_OUT):
        function = tf.function(run, autograph=False).get_concrete_function(*specs)
    results = tf.nest.flatten(function.graph.structured_outputs)
    used = {tensor.name for op in in_order(function.graph, results) for tensor in op.inputs}
    given = [tensor.name for tensor in function.graph.inputs[: len(ports)]]
    return any(name in used for name in given[first:last]), given[last] in used
