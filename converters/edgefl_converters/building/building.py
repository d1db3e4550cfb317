"""Leads from a compiled Keras model to the bytes of a model file, without verification."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import keras

from edgefl.errors import EdgeflError, InvalidSettingError
from edgefl.manifest import ModelManifest
from edgefl.model_file import METADATA_NAME, ModelFile
from edgefl_converters.blame.layer_reports import LayerReport, makers_of_versions, report_layers
from edgefl_converters.building.assembling import Assembled, assemble
from edgefl_converters.building.describing import describe
from edgefl_converters.emission.constants import LARGE
from edgefl_converters.emission.micro_batches import require_separable_rows
from edgefl_converters.emission.walk import Origins
from edgefl_converters.flatbuffer.file import FlatModel
from edgefl_converters.flatbuffer.frozen_storage import LEAST_ELEMENTS
from edgefl_converters.flatbuffer.pass_context import PassContext
from edgefl_converters.flatbuffer.pipeline import chosen_passes, run_passes
from edgefl_converters.flatbuffer.placeholders import fill_placeholders
from edgefl_converters.models.named_model import NamedModel
from edgefl_converters.settings.options import Options
from edgefl_converters.stages import stage
from edgefl_converters.training_step.lean_graphs import lean_graphs
from edgefl_converters.training_step.makers import layer_of
from edgefl_converters.training_step.specification import Specification, specify
from edgefl_converters.training_step.tracing import Traces, trace
from edgefl_converters.training_step.variables import FROZEN, STATISTIC, WEIGHT, Variables, classify

__all__ = ["BuiltModel", "LayerReport", "build", "build_specified"]


@dataclass(frozen=True)
class BuiltModel:
    """A model file and where it comes from.

    Attributes:
        data: the file.
        manifest: as it lies in the file.
        layers: for each maker of ops (``layer 'conv1d' (Conv1D)``, ``the loss``, ``the optimizer``) what they became.
        paths: name of each parameter to the path that Keras knows it by in this process.
        float32: the same file with its frozen weights in float32; equal to ``data`` where they are so anyway.
        makers: builtin op and its version to what made such ops, in words.
    """

    data: bytes
    manifest: ModelManifest
    layers: Mapping[str, LayerReport]
    paths: Mapping[str, str]
    float32: bytes
    makers: Mapping[tuple[str, int], Sequence[str]]


def build(
    model: keras.Model | NamedModel,
    *,
    batch_size: int = 32,
    options: Options | None = None,
    on_layers: Callable[[Mapping[str, LayerReport]], None] | None = None,
    large: float = LARGE,
) -> BuiltModel:
    """Converts a compiled Keras model to a model file that trains.

    The model is neither trained nor changed. The same model gives the same bytes, in another process too.

    Args:
        model: built and compiled with a loss and an optimizer; with its names where somebody has them already.
        batch_size: rows of every batch; fixed in the file.
        options: what else the file is made for.
        on_layers: called with what became of each layer, also when the conversion fails, then up to the failure.
        large: bytes of a frozen weight from which TensorFlow's converter is shown a placeholder instead.

    Raises:
        ModelError: the model is not compiled, not built, or its output does not fit its loss.
        UnsupportedModelError: a layer, loss, metric or optimizer cannot be converted; the message names it.
        InvalidSettingError: the batch size is not positive, no frozen weight is there to be stored in fewer bytes, or
            there is no pass of a name.
    """
    specification = specify(model, batch_size=batch_size, options=options)
    return build_specified(specification, on_layers=on_layers, large=large)


def build_specified(
    specification: Specification,
    *,
    on_layers: Callable[[Mapping[str, LayerReport]], None] | None = None,
    large: float = LARGE,
) -> BuiltModel:
    """Does as `build` does, for a model that has been looked at already.

    Args:
        specification: of the model and the options.
        on_layers: as `build` takes it.
        large: likewise.

    Raises:
        EdgeflError: whatever `build` raises.
    """
    passes = chosen_passes(specification.options.without_passes)
    with stage("tracing"), lean_graphs():
        traces = trace(specification)
        variables = classify(specification, traces)
    require_separable_rows(traces, variables)
    origins, tell = Origins(), on_layers or (lambda layers: None)
    sizes = specification.options.further_batch_sizes
    try:
        with stage("tracing"), lean_graphs():
            further = {size: trace(specification.of_batch_size(size)) for size in sizes}
        with lean_graphs():
            assembled = assemble(specification, traces, variables, origins, further, large)
    except EdgeflError:
        tell(report_layers(origins, traces))
        raise
    with stage("passes"):
        exact = _filled(assembled)
        emitted = list(exact.emitted())
    layers = report_layers(origins, traces, emitted)
    tell(layers)
    made_by_frozen = _made_by_frozen(origins, traces, variables)

    @stage("passes")
    def finish(flat: FlatModel, storage: str | None) -> tuple[bytes, ModelManifest]:
        initial_values = {
            key: each.initial for key, each in assembled.resources.items() if each.role in (WEIGHT, STATISTIC)
        }
        context = PassContext(flat, specification.options.target, initial_values, storage, made_by_frozen)
        run_passes(context, passes)
        if storage is not None and not context.stored:
            raise _nothing_to_store(
                storage, any(variables.role_of(each) == FROZEN for each in specification.model.variables)
            )
        moved = flat.drop_unused()
        buffers = {assembled.resources[key].name: moved[index] for key, index in context.buffers.items()}
        return _complete(flat, describe(specification, traces, variables, assembled.signatures, buffers))

    float32, manifest = finish(exact, None)
    data, storage = float32, specification.options.quantize_frozen
    if storage is not None:
        data, manifest = finish(_filled(assembled), storage)
    paths = {each.name: each.keras_path for each in variables.of_role(WEIGHT, STATISTIC)}
    return BuiltModel(data, manifest, layers, paths, float32, makers_of_versions(origins, traces, emitted))


def _filled(assembled: Assembled) -> FlatModel:
    flat = FlatModel(assembled.data)
    fill_placeholders(flat, assembled.large)
    return flat


def _complete(flat: FlatModel, manifest: ModelManifest) -> tuple[bytes, ModelManifest]:
    flat.set_metadata(METADATA_NAME, manifest.to_json())
    return _seal(flat.pack(), manifest)


def _made_by_frozen(origins: Origins, traces: Traces, variables: Variables) -> Callable[[str], bool]:
    """Tells whether an op, by the name of its output, was made by a layer with frozen weights."""
    layers = {
        index
        for index, layer in enumerate(traces.layers)
        if any(variables.role_of(each) == FROZEN for each in layer.variables)
    }
    return lambda output: any(layer_of(each.op_name) in layers for each in origins.named(output))


def _nothing_to_store(storage: str, some_are_frozen: bool) -> InvalidSettingError:
    if not some_are_frozen:
        return InvalidSettingError(
            f"Nothing is frozen, so that nothing can be stored as {storage}: what is trained stays float32.",
            hint="Say what is trained (`trainable`, `last_layers`, `lora_rank`), or leave `quantize_frozen` out.",
        )
    return InvalidSettingError(
        f"The frozen weights are too small to be stored as {storage}: that is for weights of at least "
        f"{LEAST_ELEMENTS:,} values, all finite, in two dimensions or more.",
        hint="Leave `quantize_frozen` out: it would save next to nothing here.",
    )


def _seal(data: bytes, manifest: ModelManifest) -> tuple[bytes, ModelManifest]:
    """Puts the graph hash into the manifest in place: all hashes have one length, so nothing moves."""
    sealed = replace(manifest, graph_hash=ModelFile(data).compute_graph_hash())
    old, new = manifest.to_json(), sealed.to_json()
    if len(old) != len(new) or data.count(old) != 1:
        raise AssertionError("The manifest does not lie in the file exactly once.")
    return data.replace(old, new), sealed
