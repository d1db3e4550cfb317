"""Model files for tests that need a manifest and weights, but no graph that an interpreter could run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import flatbuffers
import numpy as np
from numpy.typing import NDArray

from edgefl.hashing import weights_hash
from edgefl.layout import Parameter
from edgefl.manifest import Metric, ModelManifest, Signature, Target, TensorSpec
from edgefl.model_file import METADATA_NAME, ModelFile
from edgefl.wire.generated import tflite_container_generated as container

__all__ = ["default_parameters", "make_model_file"]


def default_parameters(statistics: bool = True) -> list[Parameter]:
    """A small dense model with, where wanted, the moving averages of a batch normalisation."""
    parameters = [Parameter("dense/kernel", "m/dense/kernel", (3, 4)), Parameter("dense/bias", "m/dense/bias", (4,))]
    if statistics:
        parameters.append(Parameter("norm/moving_variance", "m/norm/moving_variance", (4,), role="statistic"))
    return parameters


def make_model_file(
    parameters: Sequence[Parameter] | None = None,
    *,
    values: Sequence[NDArray[np.float32]] | None = None,
    seed: int = 0,
    batch_size: int = 8,
    algorithms: Sequence[str] = (),
    momentum: float = 0.0,
    mixes_rows: bool = False,
) -> bytes:
    """The bytes of a file that `ModelFile` reads and verifies.

    Args:
        parameters: their `buffer` is filled in here; by default `default_parameters()`.
        values: initial values, one array of the right shape a parameter; drawn from `seed` when left out.
        seed: for the drawn values.
        batch_size: what the manifest says.
        algorithms: those of `edgefl.algorithms.ALGORITHMS` for which the manifest has signatures.
        momentum: of the SGD that it says it was compiled with.
        mixes_rows: what the manifest says.
    """
    parameters = list(default_parameters() if parameters is None else parameters)
    random = np.random.default_rng(seed)
    if values is None:
        values = [random.normal(size=each.shape).astype(np.float32) for each in parameters]
        values = [
            1 + np.abs(value) if "variance" in each.name else value
            for each, value in zip(parameters, values, strict=True)
        ]
    # Buffer 0 is always empty, as in every TFLite file; then one per parameter, then the manifest.
    parameters = [replace(each, buffer=index) for index, each in enumerate(parameters, start=1)]
    manifest = ModelManifest(
        parameters=tuple(parameters),
        signatures=_signatures(parameters, batch_size, algorithms),
        inputs=("x",),
        outputs=("y",),
        targets=(Target("y", "y", classes=4),),
        batch_size=batch_size,
        mixes_rows=mixes_rows,
        optimizer={"class_name": "SGD", "config": {"learning_rate": 0.01, "momentum": momentum}},
        metrics=(Metric("accuracy", "mean", ("accuracy_total", "accuracy_count")),),
    )
    layout = manifest.layout
    initial = layout.pack({each.name: value for each, value in zip(parameters, values, strict=True) if each.shared})
    manifest = replace(manifest, layout_hash=layout.hash, weights_hash=weights_hash(initial))
    payloads = [b"", *(np.ascontiguousarray(value, "<f4").tobytes() for value in values)]
    # The graph hash reads the manifest as zeros, but its length counts: it is measured with the zeros in place.
    draft = _write([*payloads, manifest.to_json()])
    graph = ModelFile(draft).compute_graph_hash()
    return _write([*payloads, replace(manifest, graph_hash=graph).to_json()])


def _signatures(parameters: Sequence[Parameter], batch: int, algorithms: Sequence[str]) -> dict[str, Signature]:
    data = (TensorSpec("x", "x", (batch, 3), "float32"), TensorSpec("y", "y", (batch,), "int32"))
    names = ("loss", "accuracy_total", "accuracy_count")
    results = tuple(TensorSpec(name, name, (1,), "float32") for name in names)
    status = TensorSpec("status", "status", (1,), "float32")
    weights = [each for each in parameters if each.shared and each.role == "weight"]
    specs = tuple(TensorSpec(each.name, each.name, each.shape, each.dtype) for each in weights)
    signatures = {"train": Signature(data, results)}
    if {"fedprox", "feddyn"} & set(algorithms):
        signatures["train"] = Signature((*data, TensorSpec("mu", "mu", (1,), "float32")), results)
        signatures["set_reference"] = Signature((), (status,))
    if {"scaffold", "feddyn"} & set(algorithms):
        signatures["set_correction"] = Signature(specs, (status,))
    if "fedsgd" in algorithms:
        gradients = tuple(TensorSpec(f"gradient/{spec.name}", spec.tensor, spec.shape, spec.dtype) for spec in specs)
        signatures["gradient"] = Signature(data, (*results, *gradients))
    return signatures


def _write(payloads: Sequence[bytes]) -> bytes:
    builder = flatbuffers.Builder(1024)
    buffers = []
    for payload in payloads:
        data = builder.CreateByteVector(payload) if payload else None
        container.BufferStart(builder)
        if data is not None:
            container.BufferAddData(builder, data)
        buffers.append(container.BufferEnd(builder))
    name = builder.CreateString(METADATA_NAME)
    container.MetadataStart(builder)
    container.MetadataAddName(builder, name)
    container.MetadataAddBuffer(builder, len(payloads) - 1)
    metadata = container.MetadataEnd(builder)
    container.ModelStartBuffersVector(builder, len(buffers))
    for offset in reversed(buffers):
        builder.PrependUOffsetTRelative(offset)
    buffers_at = builder.EndVector()
    container.ModelStartMetadataVector(builder, 1)
    builder.PrependUOffsetTRelative(metadata)
    metadata_at = builder.EndVector()
    container.ModelStart(builder)
    container.ModelAddVersion(builder, 3)
    container.ModelAddBuffers(builder, buffers_at)
    container.ModelAddMetadata(builder, metadata_at)
    builder.Finish(container.ModelEnd(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
