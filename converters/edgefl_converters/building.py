"""From a compiled Keras model to the bytes of a model file, without verification."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import keras

from edgefl.errors import EdgeflError
from edgefl.manifest import ModelManifest
from edgefl.model_file import METADATA_NAME, ModelFile
from edgefl_converters.assembling import Assembled, assemble
from edgefl_converters.describing import describe
from edgefl_converters.flatbuffer import FlatModel
from edgefl_converters.layer_reports import LayerReport, report_layers
from edgefl_converters.options import Options
from edgefl_converters.specification import specify
from edgefl_converters.tracing import Traces, layer_of, trace
from edgefl_converters.variables import STATISTIC, WEIGHT, classify
from edgefl_converters.walk import Origins

__all__ = ["BuiltModel", "LayerReport", "build"]


@dataclass(frozen=True)
class BuiltModel:
    """A model file and where it comes from.

    Attributes:
        data: the file.
        manifest: as it lies in the file.
        layers: for each maker of ops (``layer 'conv1d' (Conv1D)``, ``the loss``, ``the optimizer``) what they became.
        paths: name of each parameter to the path that Keras knows it by in this process.
        float32: the same file with its frozen weights in float32; equal to ``data`` where they are so anyway.
    """

    data: bytes
    manifest: ModelManifest
    layers: Mapping[str, LayerReport]
    paths: Mapping[str, str]
    float32: bytes


def build(
    model: keras.Model,
    *,
    batch_size: int = 32,
    options: Options | None = None,
    on_layers: Callable[[Mapping[str, LayerReport]], None] | None = None,
) -> BuiltModel:
    """Converts a compiled Keras model to a model file that trains.

    The model is neither trained nor changed. The same model gives the same bytes, in another process too.

    Args:
        model: built and compiled with a loss and an optimizer.
        batch_size: rows of every batch; fixed in the file.
        options: what else the file is made for.
        on_layers: called with what became of each layer, also when the conversion fails, then up to the failure.

    Raises:
        ModelError: the model is not compiled, not built, or its output does not fit its loss.
        UnsupportedModelError: a layer, loss, metric or optimizer cannot be converted; the message names it.
        InvalidSettingError: the batch size is not positive.
    """
    specification = specify(model, batch_size=batch_size, options=options)
    traces = trace(specification)
    variables = classify(specification, traces)
    origins, tell = Origins(), on_layers or (lambda layers: None)
    try:
        assembled = assemble(specification, traces, variables, origins)
    except EdgeflError:
        tell(report_layers(origins, traces))
        raise
    layers = report_layers(origins, traces, FlatModel(assembled.data).emitted())
    tell(layers)

    def finish(storage: str | None) -> tuple[bytes, ModelManifest]:
        flat = FlatModel(assembled.data)
        if storage is not None:
            flat.store_constants(storage, functools.partial(_has_frozen_weights, origins, traces))
        buffers = _arrange(flat, assembled)
        return _complete(flat, describe(specification, traces, variables, assembled.signatures, buffers))

    float32, _ = finish(None)
    data, manifest = finish(specification.options.quantize_frozen)
    paths = {each.name: each.keras_path for each in variables.of_role(WEIGHT, STATISTIC)}
    return BuiltModel(data, manifest, layers, paths, float32)


def _arrange(flat: FlatModel, assembled: Assembled) -> dict[str, int]:
    """Gives a file its final form but for the manifest; returns the buffer of each parameter by its name."""
    owned = {key: each.initial for key, each in assembled.resources.items() if each.role in (WEIGHT, STATISTIC)}
    buffers = flat.give_own_buffers(owned)
    flat.share_equal_buffers()
    flat.compute_repeated_constants(["reset_optimizer"])
    flat.separate_outputs()
    flat.make_primary("train")
    flat.drop_names()
    moved = flat.drop_unused()
    return {assembled.resources[key].name: moved[index] for key, index in buffers.items()}


def _complete(flat: FlatModel, manifest: ModelManifest) -> tuple[bytes, ModelManifest]:
    flat.set_metadata(METADATA_NAME, manifest.to_json())
    return _seal(flat.pack(), manifest)


def _has_frozen_weights(origins: Origins, traces: Traces, name: str) -> bool:
    """Whether an op, by the name of its output, was made by a layer with weights that are not trained."""
    found = re.search(r"\bop(\d+)", name)
    if not found or int(found[1]) >= len(origins.all):
        return False
    maker = layer_of(origins.all[int(found[1])].op_name)
    if not isinstance(maker, int):
        return False
    layer = traces.layers[maker]
    trained = {id(variable) for variable in layer.trainable_variables}
    return any(id(variable) not in trained for variable in layer.variables)


def _seal(data: bytes, manifest: ModelManifest) -> tuple[bytes, ModelManifest]:
    """Puts the graph hash into the manifest in place: all hashes have one length, so nothing moves."""
    sealed = replace(manifest, graph_hash=ModelFile(data).compute_graph_hash())
    old, new = manifest.to_json(), sealed.to_json()
    if len(old) != len(new) or data.count(old) != 1:
        raise AssertionError("The manifest does not lie in the file exactly once.")
    return data.replace(old, new), sealed
