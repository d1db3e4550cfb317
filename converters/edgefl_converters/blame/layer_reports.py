"""Says what became of each Keras layer: its TensorFlow ops, kept or lowered, and the builtin ops made of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgefl_converters.blame.attribution import describe_layer, describe_origin
from edgefl_converters.emission.walk import Origins
from edgefl_converters.flatbuffer.file import Emitted
from edgefl_converters.training_step.tracing import Traces

__all__ = ["LayerReport", "as_json", "makers_of_versions", "report_layers"]


@dataclass(frozen=True)
class LayerReport:
    """Holds what became of one layer's ops, over all signatures.

    Attributes:
        kept: TensorFlow op type to how often it was kept as it is.
        lowered: TensorFlow op type to how often builtin ops stand in for it.
        builtin: builtin TFLite op to how often it is in the file for this layer; empty when there is no file. Ops that
            the converter fused from several layers count for the one that it names first.
        parameters: number of values in its weights.
        training: ``trained`` or ``frozen``; empty without weights.
        layer: the name that Keras knows the layer by; None for the loss, the optimizer and the like.
    """

    kept: Mapping[str, int]
    lowered: Mapping[str, int]
    builtin: Mapping[str, int]
    parameters: int = 0
    training: str = ""
    layer: str | None = None


def report_layers(origins: Origins, traces: Traces, emitted: Iterable[Emitted] = ()) -> dict[str, LayerReport]:
    """Counts ops by what made them, every layer of the model included.

    Args:
        origins: what was emitted, up to a failure if there was one.
        traces: where it comes from.
        emitted: builtin ops of the file.
    """
    kept: dict[str, Counter[str]] = {}
    lowered: dict[str, Counter[str]] = {}
    builtin: dict[str, Counter[str]] = {}
    weights: dict[str, tuple[int, str]] = {}
    for layer in traces.layers:
        if not getattr(layer, "layers", None):
            weights[describe_layer(layer)] = _weights(layer)
    names = {describe_layer(layer): layer.name for layer in traces.layers}
    makers = [describe_origin(origin.op_name, traces) for origin in origins.all]
    for maker, origin in zip(makers, origins.all):
        (lowered if origin.lowered else kept).setdefault(maker, Counter())[origin.op_type] += 1
    for each in emitted:
        for origin in origins.named(each.output)[:1]:
            builtin.setdefault(describe_origin(origin.op_name, traces), Counter())[each.op] += 1
    return {
        maker: LayerReport(
            _sorted(kept.get(maker)),
            _sorted(lowered.get(maker)),
            _sorted(builtin.get(maker)),
            *weights.get(maker, (0, "")),
            names.get(maker),
        )
        for maker in dict.fromkeys((*weights, *makers))
    }


def makers_of_versions(
    origins: Origins, traces: Traces, emitted: Iterable[Emitted]
) -> dict[tuple[str, int], tuple[str, ...]]:
    """Tells for each builtin op and version what made such ops; see `report_layers` for the arguments."""
    found: dict[tuple[str, int], dict[str, None]] = {}
    for each in emitted:
        for origin in origins.named(each.output)[:1]:
            found.setdefault((each.op, each.version), {})[describe_origin(origin.op_name, traces)] = None
    return {key: tuple(makers) for key, makers in found.items()}


def _sorted(counts: Mapping[str, int] | None) -> dict[str, int]:
    return dict(sorted((counts or {}).items()))


def as_json(layers: Mapping[str, LayerReport]) -> dict[str, Any]:
    """As plain values; the name of a layer stands in the description that is its key."""
    return {
        maker: {name: value for name, value in asdict(layer).items() if name != "layer"}
        for maker, layer in layers.items()
    }


def _weights(layer: Any) -> tuple[int, str]:
    count = sum(math.prod(variable.shape) for variable in layer.weights)
    if not layer.weights:
        return 0, ""
    if not layer.trainable_weights:
        return count, "frozen"
    # Statistics such as a moving mean are never trained: they do not make a layer frozen in part.
    return count, "trained"
