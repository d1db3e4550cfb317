"""Tells whether a model file is what a Keras model converts to: intact, of the same layout, training the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from edgefl.errors import InvalidSettingError, ModelError, VerificationError, listed
from edgefl.manifest import ModelManifest
from edgefl.model_file import ModelFile
from edgefl_converters.building.building import build_specified
from edgefl_converters.building.room import require_room
from edgefl_converters.lint import require_clean
from edgefl_converters.models.loading import compile_model, load_source, shares_layers
from edgefl_converters.settings.options import Options, options_of
from edgefl_converters.training_step.precision import in_float32
from edgefl_converters.training_step.selection import fine_tuned
from edgefl_converters.training_step.specification import Specification, specify
from edgefl_converters.verification.agreement import compare
from edgefl_converters.verification.report import VerificationReport

__all__ = ["verify"]


def verify(file: str | os.PathLike[str], against: Any) -> VerificationReport:
    """See `edgefl_converters.verify`."""
    source = ModelFile.read(file)
    source.verify()
    manifest = source.manifest
    require_clean(bytes(source.data), manifest)
    model, same_weights_every_time = load_source(against)
    _compile_as_converted(model, manifest)
    options = options_of(manifest)
    try:
        with (
            in_float32(model) as single,
            fine_tuned(single, options.fine_tuning, own=not shares_layers(single, against)) as wanted,
        ):
            specification = _specified(wanted, options, manifest)
            require_room(specification, verify=True)
            return _verify(source, specification, same_weights=same_weights_every_time)
    except InvalidSettingError as error:
        raise _made_from_another(source, error.message) from error


def _specified(model: keras.Model, options: Options, manifest: ModelManifest) -> Specification:
    """The model as the file was made, or where its loss does not take the file's targets, as it would be by itself."""
    try:
        return specify(model, batch_size=manifest.batch_size, options=options)
    except ModelError:
        return specify(model, batch_size=manifest.batch_size, options=replace(options, target_shape=None))


def _verify(source: ModelFile, specification: Specification, *, same_weights: bool) -> VerificationReport:
    manifest = source.manifest
    differences = list(_differences(specification, manifest))
    if same_weights and not differences:
        differences = list(_other_weights(specification, source))
    if differences:
        more = f" (and {len(differences) - 1} more differences)" if len(differences) > 1 else ""
        raise _made_from_another(source, f"{differences[0]}{more}.")
    report = compare(specification, _in_float32(source, specification))
    try:
        report.require()
        for size in manifest.further_batch_sizes:
            compare(specification.of_batch_size(size), _in_float32(source, specification)).require()
    except VerificationError as error:
        raise VerificationError(
            error.message, hint="If the file was made from this very model, please report it; otherwise convert again."
        ) from error
    return report


def _in_float32(source: ModelFile, specification: Specification) -> bytes:
    """The file as it computes with frozen weights in float32: what can be compared with Keras to the last digits."""
    if specification.options.quantize_frozen is None:
        return bytes(source.data)
    built = build_specified(specification)
    if built.manifest.graph_hash != source.manifest.graph_hash:
        raise _made_from_another(source, "its frozen weights are others, or another edgefl stored them.")
    return built.float32


def _made_from_another(source: ModelFile, difference: str) -> VerificationError:
    return VerificationError(
        f"{source.name} was not made from this model: {difference}",
        hint="Convert the model again, or compare with the one that the file was made from.",
    )


def _compile_as_converted(model: keras.Model, manifest: ModelManifest) -> None:
    """A model that was saved without being compiled gets the loss and optimizer that the file was made with."""
    if model.compiled:
        return
    config = (manifest.keras_config or {}).get("compile_config")
    try:
        model.compile_from_config(config)
    except Exception as error:
        raise ModelError(
            "The model is not compiled, and the file's own loss and optimizer cannot be rebuilt.",
            hint="Compile the model as it was when it was converted.",
        ) from error
    compile_model(model)


def _differences(specification: Specification, manifest: ModelManifest) -> Iterator[str]:
    optimizer = (manifest.optimizer or {}).get("class_name")
    if optimizer != type(specification.optimizer).__name__:
        yield f"it trains with {optimizer}, the model with {type(specification.optimizer).__name__}"
    if manifest.learning_rate != specification.learning_rate:
        yield f"its learning rate is {manifest.learning_rate:g}, the model's {specification.learning_rate:g}"
    for what, in_file, in_model in (
        ("inputs", manifest.inputs, tuple(port.name for port in specification.inputs)),
        ("outputs", manifest.outputs, tuple(port.name for port in specification.outputs)),
        ("targets", tuple(each.name for each in manifest.targets), tuple(port.name for port in specification.targets)),
    ):
        if in_file != in_model:
            yield f"its {what} are {listed(in_file)}, the model's {listed(in_model)}"
    given = {spec.name: (spec.dtype, spec.shape) for spec in manifest.signatures["train"].inputs}
    for port in (*specification.inputs, *specification.targets):
        if given.get(port.name, (port.dtype, port.shape)) != (port.dtype, port.shape):
            dtype, shape = given[port.name]
            yield f"its {port.name!r} is {dtype} {shape}, the model's {port.dtype} {port.shape}"
    names = specification.named.variables
    for parameter in manifest.parameters:
        if parameter.name not in names:
            yield f"it has a parameter {parameter.name!r}, the model has none"
        elif tuple(names[parameter.name].shape) != parameter.shape:
            yield (
                f"its parameter {parameter.name!r} has shape {parameter.shape}, "
                f"the model's {tuple(names[parameter.name].shape)}"
            )
    weights = {parameter.name for parameter in manifest.parameters if parameter.role == "weight"}
    trainable = {id(variable) for variable in specification.model.trainable_variables}
    for name, variable in names.items():
        if id(variable) in trainable and name not in weights:
            yield f"the model trains {name!r}, the file does not"
        elif id(variable) not in trainable and name in weights:
            yield f"the file trains {name!r}, the model does not"


def _other_weights(specification: Specification, source: ModelFile) -> Iterator[str]:
    names = specification.named.variables
    for parameter in source.manifest.parameters:
        distance = float(np.max(np.abs(np.asarray(names[parameter.name]) - source.initial_value(parameter)), initial=0))
        if distance != 0:
            yield f"its initial {parameter.name!r} differs by up to {distance:.3g}"
