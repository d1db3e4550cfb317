"""The result of a simulation: a row for each round, and the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgefl.manifest import ModelManifest
from edgefl_server.aggregation import finalise
from edgefl_simulation.evaluating import Evaluation
from edgefl_simulation.plans import Round

__all__ = ["History", "row_of"]

Row = dict[str, Any]


@dataclass
class History:
    """The result of a simulation.

    Attributes:
        rounds: a row of plain values for each round, see `row_of`.
        initial: the evaluation before the first round, as in a row.
        weights: float32 ``[layout.size]``: the newest.
        manifest: of the model file.
        model: the model file.
        folder: where everything was written; None: nowhere.
        stopped: why the run ended before its last round; empty otherwise.
        devices_per_second: that trained, beside evaluation; of this process's rounds.
    """

    manifest: ModelManifest
    weights: NDArray[np.float32]
    model: bytes = field(repr=False)
    rounds: list[Row] = field(default_factory=list)
    initial: Row = field(default_factory=dict)
    folder: Path | None = None
    stopped: str = ""
    devices_per_second: float = 0.0

    def metric(self, name: str = "accuracy") -> list[float]:
        """One metric on the held-out rows, of each round that has it."""
        return [row["central"][name] for row in self.rounds if name in row.get("central", {})]

    @property
    def final(self) -> Mapping[str, float]:
        """The metrics on the held-out rows after the latest round that has any."""
        found = [row["central"] for row in [self.initial, *self.rounds] if row.get("central")]
        return found[-1] if found else {}

    def summary(self) -> Row:
        """The result as plain values."""
        return {
            "rounds": len(self.rounds),
            "failed_rounds": sum(row["state"] == "failed" for row in self.rounds),
            "simulated_seconds": self.rounds[-1]["clock"] if self.rounds else 0.0,
            "initial": self.initial,
            "central": dict(self.final),
            "federated": next((row["federated"] for row in reversed(self.rounds) if row.get("federated")), {}),
            "stopped": self.stopped,
            "devices_per_second": round(self.devices_per_second, 1),
        }


def row_of(done: Round, manifest: ModelManifest, evaluation: Evaluation | None, seconds: float) -> Row:
    """A round as plain values.

    Args:
        done: the round.
        manifest: the model's.
        evaluation: of the weights after it; None: they were not evaluated.
        seconds: that it really took.

    Returns:
        ``round``, ``version``, ``state``, ``clock`` (simulated seconds), ``seconds``, ``outcomes`` by how they ended,
        ``num_examples``, ``training`` (metrics of the devices while they trained), ``central`` and ``federated`` (see
        `Evaluation`), ``diagnostics``, ``why`` and ``errors``, and what `edgefl_simulation.plans.Costs` says.
    """
    folded = done.folded
    row: Row = {
        "round": done.fold,
        "version": done.version,
        "state": "failed" if folded is None else "done",
        "clock": done.clock,
        "seconds": round(seconds, 4),
        "outcomes": dict(sorted(done.outcomes.items())),
        "num_examples": 0 if folded is None else folded.num_examples,
        "training": {} if folded is None else finalise(folded.metric_sums, manifest.metrics),
        "diagnostics": {} if folded is None else dict(folded.diagnostics),
        **({} if done.costs is None else done.costs.plain()),
    }
    if any(done.staleness):
        row["staleness"] = list(done.staleness)
    if done.why:
        row["why"] = done.why
    if done.errors:
        row["errors"] = list(done.errors[:10])
    return row | evaluated(evaluation)


def evaluated(evaluation: Evaluation | None) -> Row:
    """An evaluation as plain values."""
    if evaluation is None:
        return {}
    row: Row = {"central": dict(evaluation.central)} if evaluation.central else {}
    if evaluation.federated:
        spread = {name: asdict(each) for name, each in evaluation.federated.items()}
        for each in spread.values():
            each["quantiles"] = {f"{share:g}": value for share, value in each["quantiles"].items()}
        row["federated"] = {"devices": evaluation.devices, **spread}
    return row
