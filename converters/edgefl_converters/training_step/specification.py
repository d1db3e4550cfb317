"""Looks at what is to be converted: a compiled Keras model, seen from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from edgefl.errors import EdgeflError, InvalidSettingError, ModelError, UnsupportedModelError, first_line
from edgefl_converters.models.local_variables import local_variables
from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.models.naming import PathNames, unique
from edgefl_converters.settings.options import Options
from edgefl_converters.training_step.federated_terms import FederatedTerms, federated_terms_of, require_algorithms
from edgefl_converters.training_step.learning_rates import compiled_learning_rate

__all__ = ["Port", "Specification", "specify", "unscaled"]


@dataclass(frozen=True)
class Port:
    """A tensor that a model takes or gives.

    Attributes:
        name: stable name.
        shape: with the static batch first.
        dtype: name of the type.
        output: for a target, index of the model output that it is compared with.
        classes: for a target of integer labels, their number; else None.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    output: int = 0
    classes: int | None = None

    @property
    def symbolic(self) -> Any:
        """A symbolic Keras tensor of this shape and type."""
        return keras.KerasTensor(self.shape, self.dtype)


@dataclass(frozen=True)
class Specification:
    """A compiled Keras model, with everything that its training step needs derived from it.

    Attributes:
        named: the Keras model with its names; tracing neither trains nor changes it.
        batch_size: rows of every batch.
        optimizer: a fresh copy of the compiled optimizer, built on the trainable variables, with initial slots.
        learning_rate: what trains as compiled; 1.0 where it multiplies, see `learning_rates`.
        inputs: in the model's order.
        outputs: in the model's order.
        targets: one per output that has a loss.
        input_structure: how the model's call nests its inputs.
        output_structure: how the model nests its outputs.
        options: what else the file is made for.
        local: identities of the model's variables that stay on the device.
        federated_terms: what the algorithms of the options need.
    """

    named: NamedModel
    batch_size: int
    optimizer: Any
    learning_rate: float
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    targets: tuple[Port, ...]
    input_structure: Any
    output_structure: Any
    options: Options
    local: frozenset[int]
    federated_terms: FederatedTerms

    @property
    def parts(self) -> int:
        """Returns how many micro-batches a batch is cut into; 1 for none."""
        return self.batch_size // (self.options.micro_batch or self.batch_size)

    @property
    def model(self) -> Any:
        """The Keras model."""
        return self.named.model

    @property
    def names(self) -> PathNames:
        """Stable names of layers and of whatever else a path names."""
        return self.named.names

    def nest_inputs(self, tensors: Sequence[Any]) -> Any:
        """Gives flat inputs the nesting that the model's call takes."""
        return keras.tree.pack_sequence_as(self.input_structure, list(tensors))

    def nest_targets(self, tensors: Sequence[Any]) -> Any:
        """Gives flat targets the nesting of the model's outputs; an output without a loss gets None."""
        if not keras.tree.is_nested(self.output_structure):
            return tensors[0]
        by_output: list[Any] = [None] * len(self.outputs)
        for target, tensor in zip(self.targets, tensors):
            by_output[target.output] = tensor
        return keras.tree.pack_sequence_as(self.output_structure, by_output)


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
        output_structure = model.compute_output_spec(symbolic)
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
    require_algorithms(options.algorithms, unscaled(model.optimizer), local=bool(local))
    return Specification(
        named=named,
        batch_size=batch_size,
        optimizer=optimizer,
        learning_rate=compiled_learning_rate(optimizer),
        inputs=inputs,
        outputs=outputs,
        targets=_targets(model, output_structure, outputs, {port.name for port in inputs}),
        input_structure=input_structure,
        output_structure=output_structure,
        options=options,
        local=frozenset(local),
        federated_terms=federated_terms_of(model, options.algorithms, local),
    )


def _check_model(model: Any, *, mixed: bool) -> None:
    if not isinstance(model, keras.Model):
        raise ModelError(f"Expected a Keras model, got {type(model).__name__}.")
    if not model.compiled or getattr(model, "optimizer", None) is None or model._compile_loss is None:
        raise ModelError(
            "The model is not compiled with an optimizer and a loss.",
            hint="Call model.compile(optimizer=..., loss=...) first, or give `optimizer` and `loss` to convert.",
        )
    if not model.built:
        raise ModelError(
            "The model has no weights yet: its input shape is not known.",
            hint="Give `input_shape`, begin it with keras.Input(shape), or call it once on data.",
        )
    if not model.trainable_variables:
        raise ModelError("The model has no trainable weights.", hint="Set layer.trainable = True where it shall learn.")
    if type(model).train_step is not keras.Model.train_step:
        raise UnsupportedModelError(
            f"{type(model).__name__} overrides train_step, which a model file cannot follow.",
            hint="Express it as a loss (add_loss, compute_loss) or as layers, and leave train_step as it is.",
        )
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


def _targets(model: Any, output_structure: Any, outputs: Sequence[Port], taken: set[str]) -> tuple[Port, ...]:
    losses = _losses_by_output(model, output_structure, outputs)
    with_loss = [index for index, loss in enumerate(losses) if loss is not None]
    if not with_loss:
        raise ModelError("No output of the model has a loss.", hint="Compile the model with a loss.")
    targets = []
    for index in with_loss:
        output = outputs[index]
        name = "y" if len(outputs) == 1 else f"y_{output.name}"
        while name in taken:
            name = f"target_{name}"
        if _takes_labels(losses[index]):
            if len(output.shape) < 2:
                raise _unfit(output, "class scores [batch, ..., classes]")
            targets.append(Port(name, output.shape[:-1], "int32", index, output.shape[-1]))
        else:
            targets.append(Port(name, output.shape, "float32", index))
    return tuple(targets)


def _unfit(output: Port, expected: str) -> EdgeflError:
    return ModelError(
        f"The loss expects {expected}, but output {output.name!r} has shape {output.shape}.",
        hint="Change the last layer or the loss so that they fit.",
    )


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


def _takes_labels(loss: Any) -> bool:
    """True for the losses whose target is a class number per row."""
    if isinstance(loss, str):
        name = loss
    elif isinstance(loss, keras.losses.Loss):
        name = getattr(getattr(loss, "fn", None), "__name__", type(loss).__name__)
    else:
        name = getattr(loss, "__name__", type(loss).__name__)
    plain = name.lower().replace("_", "")
    return "sparsecategorical" in plain or "categoricalgeneralized" in plain


def unscaled(optimizer: Any) -> Any:
    """The optimizer without what scales its loss for mixed precision: in float32 there is nothing to scale."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _fresh_optimizer(model: Any) -> Any:
    compiled = unscaled(model.optimizer)
    try:
        fresh = type(compiled).from_config(compiled.get_config())
    except Exception as error:
        raise UnsupportedModelError(
            f"The optimizer {type(compiled).__name__} cannot be rebuilt from its configuration: {first_line(error)}",
            hint="Give it a get_config() that returns the arguments of its constructor.",
        ) from error
    fresh.build(model.trainable_variables)
    return fresh
