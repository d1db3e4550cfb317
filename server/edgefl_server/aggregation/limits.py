"""Reads from a model file what holds for devices and outcomes: runtimes, sizes of metric states, variances."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgefl.manifest import ModelManifest
from edgefl.metrics import AFTER, BEFORE, LOSS_STATES
from edgefl.targets import ALL

__all__ = ["ModelLimits"]

_VARIANCE = re.compile(r"(?:^|[/_])(?<!log_)(?<!log/)var(?:iance)?(?:_\d+)?$")
"""Keras calls it ``moving_variance``; layers that people write themselves, ``running_var`` and the like."""


@dataclass(frozen=True)
class ModelLimits:
    """The part of a model's manifest that is kept with its run, so that the file need not be read again.

    Attributes:
        batch_size: rows of a full batch; 0: not known.
        states: elements of every state of the loss and the metrics, by name.
        variances: ``[start, stop)`` of every parameter in the statistic section that cannot be negative.
        target: the runtimes that the file was made for, a name of `edgefl.targets`.
        local: some of its parameters never leave a device, which remembers them.
        arrays: the shape of a row of every input and target, by name.
        inputs: the names of the inputs, in the model's order.
    """

    batch_size: int = 0
    states: Mapping[str, int] = field(default_factory=dict)
    variances: tuple[tuple[int, int], ...] = ()
    target: str = ALL
    local: bool = False
    arrays: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()

    @classmethod
    def of(cls, manifest: ModelManifest) -> ModelLimits:
        """The limits of a model file. A state that none of its signatures gives out has none, and is not kept."""
        sizes = {
            spec.name: math.prod(spec.shape)
            for name in ("evaluate", "gradient", "train")
            if name in manifest.signatures
            for spec in manifest.signatures[name].outputs
        }
        wanted = [name for metric in manifest.metrics for name in metric.states if name in sizes]
        layout = manifest.layout
        data = {*manifest.inputs, *(target.name for target in manifest.targets)}
        starts = {each.name: layout.offsets[each.name] - layout.weight_size for each in layout}
        return cls(
            manifest.batch_size,
            {**{name: sizes[name] for name in wanted}, **dict.fromkeys(LOSS_STATES, 1)},
            tuple(
                (starts[each.name], starts[each.name] + each.size)
                for each in layout
                if each.role == "statistic" and any(map(_VARIANCE.search, (each.name, each.keras_path)))
            ),
            manifest.target,
            bool(manifest.local_parameters),
            {each.name: tuple(each.shape[1:]) for each in manifest.signatures["train"].inputs if each.name in data},
            tuple(manifest.inputs),
        )

    def around_training(self) -> ModelLimits:
        """The limits of a run whose devices test weights before and after they train."""
        states = {prefix + name: size for prefix in ("", BEFORE, AFTER) for name, size in self.states.items()}
        return replace(self, states=states)

    def most_rows(self, num_examples: int) -> float:
        """The most rows that the last epoch of a device with so many examples can have had.

        A last batch may be filled up with rows that were used before (batch policy ``refill``).
        """
        return math.ceil(num_examples / self.batch_size) * self.batch_size if self.batch_size else math.inf

    def to_json(self) -> dict[str, Any]:
        """The limits as plain values."""
        return {
            "batch_size": self.batch_size,
            "states": dict(self.states),
            "variances": [list(each) for each in self.variances],
            "target": self.target,
            "local": self.local,
            "arrays": {name: list(shape) for name, shape in self.arrays.items()},
            "inputs": list(self.inputs),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> ModelLimits:
        """Limits from plain values; an earlier server's runs have fewer."""
        return cls(
            document.get("batch_size", 0),
            document.get("states", dict.fromkeys(LOSS_STATES, 1)),
            tuple((start, stop) for start, stop in document.get("variances", ())),
            document.get("target", ALL),
            document.get("local", False),
            {name: tuple(shape) for name, shape in document.get("arrays", {}).items()},
            tuple(document.get("inputs", ())),
        )
