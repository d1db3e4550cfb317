"""Looks at what is to be converted: a compiled Keras model, seen from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
from keras.src.trainers.compile_utils import get_loss

from edgefl.errors import EdgeflError, InvalidSettingError, ModelError, UnsupportedModelError, first_line
from edgefl_converters.models.added_losses import adds_losses
from edgefl_converters.models.local_variables import local_variables
from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.models.naming import PathNames, unique
from edgefl_converters.models.own_training import brings_loss, kept_metrics, overridden, require_one_optimizer
from edgefl_converters.settings.input_shapes import target_shapes
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.federated_terms import FederatedTerms, federated_terms_of, require_algorithms
from edgefl_converters.training_step.keras_rewrites.rewriting import WRITTEN_OUT, rewritten_keras
from edgefl_converters.training_step.learning_rates import compiled_learning_rate
from edgefl_converters.training_step.loss_forms import LossForm, form_of, target_of
from edgefl_converters.training_step.own_step import OwnStep
from edgefl_converters.training_step.own_steps import own_step_of
from edgefl_converters.training_step.ports import Nesting, Port, target_name

__all__ = ["Specification", "as_raised", "inner_optimizer", "specify"]


@dataclass(frozen=True)
class Specification:
    """A compiled Keras model, with everything that its training step needs derived from it.

    Attributes:
        named: the Keras model with its names; tracing neither trains nor changes it.
        batch_size: rows of every batch.
        optimizer: a fresh copy of the compiled optimizer, built on the trainable variables, with initial slots.
        learning_rate: what trains as compiled; 1.0 where it multiplies, see `learning_rates`.
        nesting: what it takes and gives.
        targets: one per output that has a loss.
        losses: what the compiled loss of each target is; none where the model computes its own.
        options: what else the file is made for.
        local: identities of the model's variables that stay on the device.
        federated_terms: what the algorithms of the options need.
        own_step: the model's own way to train; None where it trains as Keras does.
    """

    named: NamedModel
    batch_size: int
    optimizer: Any
    learning_rate: float
    nesting: Nesting
    targets: tuple[Port, ...]
    losses: tuple[LossForm, ...]
    options: Options
    local: frozenset[int]
    federated_terms: FederatedTerms
    own_step: OwnStep | None = None

    @property
    def parts(self) -> int:
        """Returns how many micro-batches a batch is cut into; 1 for none."""
        return self.batch_size // (self.options.micro_batch or self.batch_size)

    def of_batch_size(self, size: int) -> Specification:
        """The same for another batch size: the same model, variables and optimizer."""
        if size == self.batch_size:
            return self

        def sized(ports: tuple[Port, ...]) -> tuple[Port, ...]:
            return tuple(replace(port, shape=(size, *port.shape[1:])) for port in ports)

        return replace(
            self,
            batch_size=size,
            nesting=replace(self.nesting, inputs=sized(self.inputs), outputs=sized(self.outputs)),
            targets=sized(self.targets),
            options=replace(self.options, further_batch_sizes=()),
        )

    @property
    def model(self) -> Any:
        """The Keras model."""
        return self.named.model

    @property
    def names(self) -> PathNames:
        """Stable names of layers and of whatever else a path names."""
        return self.named.names

    @property
    def inputs(self) -> tuple[Port, ...]:
        """In the model's order."""
        return self.nesting.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """In the model's order."""
        return self.nesting.outputs

    def nest_targets(self, tensors: Sequence[Any]) -> Any:
        """Gives flat targets the nesting of the model's outputs; an output without a loss gets None."""
        return self.nesting.of_targets(self.targets, tensors)

    def split(self, tensors: Sequence[Any]) -> tuple[Any, Any, Sequence[Any]]:
        """Inputs and targets, nested, and what else a step is given."""
        first, second = len(self.inputs), len(self.inputs) + len(self.targets)
        return (
            self.nesting.of_inputs(tensors[:first]),
            self.nest_targets(tensors[first:second]),
            tensors[second:],
        )


def as_raised(error: EdgeflError) -> EdgeflError:
    """The error before Keras wrapped it: Keras makes a new one of the same type, with its own words and no hint."""
    while isinstance(error.__context__, EdgeflError):
        error = error.__context__
    return error


def specify(
    model: keras.Model | NamedModel, *, batch_size: int = 32, options: Options | None = None, mixed: bool = False
) -> Specification:
    """Derives what has to be converted from a compiled Keras model.

    Args:
        model: built and compiled with a loss and an optimizer; with its names where somebody has them already.
        batch_size: rows of every batch.
        options: what else the file is made for.
        mixed: True for a model in mixed precision, of which only a copy is to be made.

    Raises:
        InvalidSettingError: the batch size is not positive, or an option is wrong.
        ModelError: the model is not a compiled and built Keras model, or its output does not fit the loss.
        UnsupportedModelError: it needs something that a model file cannot express.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidSettingError(
            f"The batch size must be a whole number of at least 1, got {batch_size!r}.",
            hint="Choose the number of rows that a device trains on at once, for example 32.",
        )
    options = options or Options()
    options.require_equal_parts(batch_size)
    _check_model(model.model if isinstance(model, NamedModel) else model, mixed=mixed)
    named = NamedModel.of(model)
    model, names = named.model, named.names
    input_structure, inputs = _inputs(model, batch_size, names)
    symbolic = keras.tree.pack_sequence_as(input_structure, [port.symbolic for port in inputs])
    try:
        with rewritten_keras(*WRITTEN_OUT):  # else functions and loops forget the batch size
            output_structure = model.compute_output_spec(symbolic)
    except EdgeflError as error:
        raise as_raised(error) from None
    except Exception as error:
        raise ModelError(
            f"The model cannot be called with a batch of {batch_size} rows: {first_line(error)}",
            hint="Check that it works in Keras with inputs of these shapes: "
            + ", ".join(f"{port.name} {port.shape}" for port in inputs)
            + ".",
        ) from error
    outputs = _outputs(model, output_structure, names)
    optimizer = _fresh_optimizer(model)
    local = local_variables(named, options.local)
    require_algorithms(options.algorithms, inner_optimizer(model.optimizer), local=bool(local))
    nesting = Nesting(inputs, outputs, input_structure, output_structure)
    taken = {port.name for port in inputs}
    targets, losses = _targets(model, output_structure, outputs, taken, options)
    own_step = None
    if overridden(model) or kept_metrics(model):
        targets, own_step = own_step_of(model, optimizer, nesting, targets, taken, options.target_shape)
        losses = ()
    return Specification(
        named=named,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=compiled_learning_rate(optimizer),
        nesting=nesting,
        targets=targets,
        losses=losses,
        options=options,
        local=frozenset(local),
        federated_terms=federated_terms_of(model, options.algorithms, local),
        own_step=own_step,
    )


def _check_model(model: Any, *, mixed: bool) -> None:
    if not isinstance(model, keras.Model):
        raise ModelError(f"Expected a Keras model, got {type(model).__name__}.")
    require_one_optimizer(model)
    if type(model).call is keras.Model.call:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no `call`, so that a device could not predict with it.",
            hint="Give the class a call(self, inputs) that returns what it predicts, such as "
            "`return self.decoder(self.encoder(inputs))`, and call the model once on data.",
        )
    if not model.compiled or getattr(model, "optimizer", None) is None:
        raise ModelError(
            "The model is not compiled with an optimizer and a loss.",
            hint="Call model.compile(optimizer=..., loss=...) first, or give `optimizer` and `loss` to convert.",
        )
    if not model.built:
        raise ModelError(
            "The model has no weights yet: its input shape is not known.",
            hint="Give `input_shape`, begin it with keras.Input(shape), or call it once on data.",
        )
    if model._compile_loss is None and not brings_loss(model) and not adds_losses(model):
        raise ModelError(
            "The model has no loss: it was compiled without one, and no layer adds one (add_loss).",
            hint="Compile it with a loss, or give `loss` to convert.",
        )
    if not model.trainable_variables:
        raise ModelError("The model has no trainable weights.", hint="Set layer.trainable = True where it shall learn.")
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) is True:
            raise UnsupportedModelError(
                f"Layer {layer.name!r} is stateful: it carries its state from one batch to the next.",
                hint="Build it with stateful=False: the batches that a device trains on have nothing to do with each "
                "other.",
                layer=layer.name,
            )
        if layer.compute_dtype not in ("float32", None) and layer.weights and not mixed:
            raise UnsupportedModelError(
                f"Layer {layer.name!r} computes in {layer.compute_dtype}, only float32 can be trained on devices.",
                hint="Build the model with the dtype policy 'float32'.",
                layer=layer.name,
            )


def _inputs(model: Any, batch_size: int, names: PathNames) -> tuple[Any, tuple[Port, ...]]:
    functional = getattr(model, "_functional", None) or model
    structure = getattr(functional, "_inputs_struct", None)
    if structure is None:
        structure = _called_shapes(model)
    tensors = keras.tree.flatten(structure)
    stable = unique(_input_name(model, tensor, index, names) for index, tensor in enumerate(tensors))
    return structure, tuple(
        Port(name, _static_shape(name, tensor.shape, batch_size), _numeric(name, tensor.dtype))
        for name, tensor in zip(stable, tensors)
    )


def _called_shapes(model: Any) -> Any:
    """The inputs of a subclassed model, which knows them only from having been called."""
    shapes = dict(model._build_shapes_dict or {})
    if not shapes:
        raise ModelError(
            "The model's input shapes are not known.", hint="Call it once on a batch of data before converting."
        )
    structure = next(iter(shapes.values()))
    if isinstance(structure, (tuple, list)) and all(size is None or isinstance(size, int) for size in structure):
        return keras.KerasTensor(tuple(structure), "float32")
    return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor(shape, "float32"), structure)


def _input_name(model: Any, tensor: Any, index: int, names: PathNames) -> str:
    history = getattr(tensor, "_keras_history", None)
    if history is not None:
        return names(history.operation.name)
    return "x" if index == 0 else f"x_{index}"


def _static_shape(name: str, shape: Sequence[int | None], batch_size: int) -> tuple[int, ...]:
    if any(size is None for size in shape[1:]):
        example = tuple(100 if size is None else int(size) for size in shape[1:])
        raise UnsupportedModelError(
            f"Input {name!r} has shape {tuple(shape)}; every dimension but the batch must be known.",
            hint=f"Say which, for example `input_shape={example}`, or build the model with it.",
        )
    return (batch_size, *(int(size) for size in shape[1:] if size is not None))


def _numeric(name: str, dtype: str) -> str:
    if dtype == "string":
        raise UnsupportedModelError(
            f"Input {name!r} takes strings.", hint="Turn text into numbers before the model, and feed it numbers."
        )
    return "int32" if dtype.startswith(("int", "uint")) else "float32" if dtype.startswith("float") else dtype


def _outputs(model: Any, structure: Any, names: PathNames) -> tuple[Port, ...]:
    tensors = keras.tree.flatten(structure)
    functional = getattr(model, "_functional", None) or model
    given = getattr(functional, "output_names", None)
    if given is None or len(given) != len(tensors):
        given = ["output" if index == 0 else f"output_{index}" for index in range(len(tensors))]
    return tuple(
        Port(name, tuple(tensor.shape), tensor.dtype)
        for name, tensor in zip(unique(names(each) for each in given), tensors)
    )


def _targets(
    model: Any, output_structure: Any, outputs: Sequence[Port], taken: set[str], options: Options
) -> tuple[tuple[Port, ...], tuple[LossForm, ...]]:
    """A target for each output that has a loss, and what that loss is."""
    if model._compile_loss is None:
        return (), ()
    targets, forms = [], []
    losses = dict(enumerate(_losses_by_output(model, output_structure, outputs)))
    names = {index: target_name(outputs, index, taken) for index in losses if losses[index] is not None}
    said = target_shapes(options.target_shape, {outputs[index].name: name for index, name in names.items()})
    for index, name in names.items():
        output = outputs[index]
        made = get_loss(losses[index], output.symbolic, output.symbolic)
        shape = (output.shape[0], *said[output.name]) if output.name in said else None
        targets.append(target_of(made, output, index, name, shape))
        forms.append(form_of(made, targets[-1], output))
    return tuple(targets), tuple(forms)


def _losses_by_output(model: Any, structure: Any, outputs: Sequence[Port]) -> list[Any]:
    given = model._compile_loss._user_loss
    if len(outputs) == 1:
        flat = keras.tree.flatten(given)
        return [next((loss for loss in flat if loss is not None), None)]
    if isinstance(given, Mapping):
        functional = getattr(model, "_functional", None) or model
        keys = list(getattr(functional, "output_names", None) or [])
        if isinstance(structure, Mapping) and set(given) <= set(structure):
            keys = _flat_keys(structure)
        return [given.get(key) for key in keys]
    if isinstance(given, (list, tuple)):
        return list(given) if len(given) == len(outputs) else [given[0]] * len(outputs)
    return [given] * len(outputs)


def _flat_keys(structure: Mapping[str, Any]) -> list[str]:
    keys = list(structure)
    order = keras.tree.flatten(keras.tree.pack_sequence_as(structure, list(range(len(keys)))))
    indexed = keras.tree.pack_sequence_as(structure, order)
    return sorted(keys, key=lambda key: indexed[key])


def inner_optimizer(optimizer: Any) -> Any:
    """The optimizer without what scales its loss for mixed precision: in float32 there is nothing to scale."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _fresh_optimizer(model: Any) -> Any:
    compiled = inner_optimizer(model.optimizer)
    try:
        fresh = type(compiled).from_config(compiled.get_config())
    except Exception as error:
        raise UnsupportedModelError(
            f"The optimizer {type(compiled).__name__} cannot be rebuilt from its configuration: {first_line(error)}",
            hint="Give it a get_config() that returns the arguments of its constructor.",
        ) from error
    fresh.build(model.trainable_variables)
    return fresh
